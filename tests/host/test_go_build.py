"""Builds of Go modules: what names one, which Go client will do, what is told of a failure."""

import os
import shutil
from pathlib import Path

import pytest

from bazaar.errors import MissingError
from bazaar.host import debian_go, go_build


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize("change", ["go.mod", "go.sum", "main.go", "ldflags", "tags", "packages"])
def test_what_a_build_is_made_of_names_it(tmp_path, change):
    module = tmp_path / "module"
    shutil.copytree(go_build.MODULES / "etcd", module)
    values = {"ldflags": "-s -w", "tags": "", "packages": ("one",)}
    before = go_build.key(go_build.Recipe("it", module, **values))
    assert before == go_build.key(go_build.Recipe("another name", module, **values))
    if change in values:
        values[change] = ("two",) if change == "packages" else "other"
    else:
        with (module / change).open("a") as file:
            file.write("// another\n")
    assert before != go_build.key(go_build.Recipe("it", module, **values))


def test_a_failed_build_tells_what_the_client_said(tmp_path):
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module broken\n\ngo 1.21\n")
    (module / "main.go").write_text("package main\n\nfunc main() { nothing() }\n")
    with pytest.raises(MissingError, match="it cannot be built: .*undefined: nothing"):
        go_build.build(go_build.Recipe("it", module, (".",)), tmp_path, silent)


def test_what_a_build_writes_meanwhile_lies_beside_what_it_makes(tmp_path, monkeypatch):
    program, target = tmp_path / "go", tmp_path / "cache/new"
    target.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch $GOTMPDIR/x && echo $GOTMPDIR >{tmp_path}/said\n")
    program.chmod(0o755)
    (tmp_path / "go.mod").write_text("module it\n\ngo 1.21.0\n")
    client = go_build.Client(str(program), "go1.23.6", dict(os.environ))
    monkeypatch.setattr(go_build, "client", lambda recipe, progress: client)
    go_build.build(go_build.Recipe("it", tmp_path, (".",)), target, silent)
    assert Path((tmp_path / "said").read_text().strip()).parent == target.parent
    assert list(target.parent.iterdir()) == [target]


def test_a_go_too_old_is_named(tmp_path, monkeypatch):
    def none(progress):
        raise MissingError("none of Debian's")

    monkeypatch.setattr(debian_go, "get", none)
    (tmp_path / "go.mod").write_text("module new\n\ngo 1.999.0\n")
    with pytest.raises(MissingError, match=r"it needs Go 1\.999\.0 or newer: .*none of Debian's"):
        go_build.client(go_build.Recipe("it", tmp_path, (".",)), silent)


@pytest.mark.parametrize("words", ["sleep 60", "exit 1"])
def test_one_that_does_not_answer_is_passed_over(tmp_path, monkeypatch, words):
    for name, text in {"stuck": words, "good": "echo go version go1.23.6 linux/amd64"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "go.mod").write_text("module it\n\ngo 1.21.0\n")
    places = [(str(tmp_path / name), None) for name in ("stuck", "good")]
    monkeypatch.setattr(go_build, "_ANSWER", 0.5)
    monkeypatch.setattr(go_build, "_candidates", lambda progress: iter(places))
    found = go_build.client(go_build.Recipe("it", tmp_path, (".",)), silent)
    assert (found.program, found.version) == (str(tmp_path / "good"), "go1.23.6")


@pytest.mark.parametrize(
    ("version", "toolchain", "fits"),
    [
        ("go1.26.0", "", True),
        ("go1.27", "", True),
        ("go2.0.1", "", True),
        ("go1.25.9", "", False),
        ("go1.19.8", "", False),
        ("go1.23.1", "go1.23.6", True),
        ("go1.26.8", "go1.23.6", False),
    ],
)
def test_which_go_fits(tmp_path, version, toolchain, fits):
    (tmp_path / "go.mod").write_text("module it\n\ngo 1.26.0\n\ntoolchain go1.26.8\n")
    recipe = go_build.Recipe("it", tmp_path, (".",), toolchain=toolchain)
    assert go_build._fits(version, recipe) == fits
