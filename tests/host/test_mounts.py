"""Mounts, for real, below folders of the test's own."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import KernelError
from bazaar.host import mounts, namespaces

root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")

TABLE = """\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 0:28 / /with\\040space\\011tab\\134slash rw shared:2 master:3 - tmpfs tmpfs rw,mode=755
38 35 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
a line that is none
39 35 0:30 / /bare rw - proc none
"""


def test_the_kernels_table_is_read():
    found = list(mounts.parse(TABLE))
    assert [point.target for point in found] == [
        "/mnt2",
        "/with space\ttab\\slash",
        "/sys/fs/cgroup/cpu",
        "/bare",
    ]
    assert found[0].root == "/mnt1" and found[0].kind == "ext3" and "noatime" in found[0].options
    assert (
        found[2].super_options == {"rw", "cpu", "cpuacct"} and found[3].super_options == frozenset()
    )


@given(st.text())
def test_any_text_is_read(text):
    assert all(point.kind for point in mounts.parse(text) if point.target and point.kind)


def test_this_machines_own():
    assert any(point.target == "/proc" and point.kind == "proc" for point in mounts.mounted())


@root
def test_an_overlay_is_writable_above_and_only_there(tmp_path):
    low, high, upper, work, target = (
        tmp_path / name for name in ("low", "high", "upper", "work", "target")
    )
    for folder in (low, high, upper, work, target):
        folder.mkdir()
    (low / "a").write_text("low")
    (low / "b").write_text("low")
    (high / "a").write_text("high")
    mounts.overlay([low, high], target, upper=upper, work=work)
    try:
        assert mounts.is_mounted(target)
        assert (target / "a").read_text() == "high" and (target / "b").read_text() == "low"
        (target / "b").write_text("new")
        assert (low / "b").read_text() == "low" and (upper / "b").read_text() == "new"
    finally:
        assert mounts.unmount_below(tmp_path) == [str(target)]
    assert not mounts.is_mounted(target)


@root
def test_as_many_layers_as_docker_allows(tmp_path):
    layers = [tmp_path / f"{'long-name-' * 10}{number:03}" for number in range(127)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / "who").write_text(str(number))
    for name in ("upper", "work", "target"):
        (tmp_path / name).mkdir()
    mounts.overlay(layers, tmp_path / "target", upper=tmp_path / "upper", work=tmp_path / "work")
    try:
        assert (tmp_path / "target/who").read_text() == "126"
    finally:
        mounts.unmount_below(tmp_path)


@root
@pytest.mark.parametrize(
    "name", ["with:colon", "with,comma", "with\\slash", "with space", "with\nnewline"]
)
def test_layers_of_any_name(tmp_path, name):
    layer = tmp_path / name
    layer.mkdir()
    (layer / "x").write_text("here")
    for folder in ("upper", "work", "target"):
        (tmp_path / folder).mkdir()
    mounts.overlay([layer], tmp_path / "target", upper=tmp_path / "upper", work=tmp_path / "work")
    try:
        assert (tmp_path / "target/x").read_text() == "here"
    finally:
        mounts.unmount_below(tmp_path)


@root
def test_binds_read_only_and_nested_mounts_go_deepest_first(tmp_path):
    source, target = tmp_path / "source", tmp_path / "a b"
    source.mkdir()
    target.mkdir()
    (source / "inner").mkdir()
    mounts.bind(tmp_path, tmp_path)
    mounts.mount("none", tmp_path, flags=mounts.MS_SHARED)  # as systemd has it
    mounts.bind(source, target, read_only=True)
    try:
        with pytest.raises(OSError) as caught:
            (target / "x").touch()
        assert caught.value.errno == errno.EROFS
        mounts.mount("tmpfs", target / "inner", "tmpfs")
        assert not mounts.is_mounted(source / "inner")
    finally:
        assert mounts.unmount_below(tmp_path) == [
            *(str(target / "inner"), str(target), str(tmp_path))
        ]


@root
def test_what_is_refused_says_what_and_why(tmp_path):
    with pytest.raises(KernelError, match="cannot mount nosuchfs on") as caught:
        mounts.mount("none", tmp_path, "nosuchfs")
    assert caught.value.errno == errno.ENODEV
    assert not mounts.unmount(tmp_path)
    assert not mounts.unmount(tmp_path / "none")


@root
def test_separate_mounts_are_the_threads_own(tmp_path: Path):
    (tmp_path / "seen").write_text("yes")
    said: list[str] = []

    def work() -> None:
        mounts.separate(tmp_path, "/mnt")
        command = ["cat", "/mnt/seen"]
        said.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)

    namespaces.aside(work)
    assert said == ["yes"]
    assert not Path("/mnt/seen").exists()


@root
def test_separate_mounts_leave_out_what_should_not_stay_alive(tmp_path: Path):
    inner, seen = tmp_path / "state" / "in side", tmp_path / "seen"
    inner.mkdir(parents=True)
    seen.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "bazaar-test", str(inner)], check=True)
    said: list[str] = []

    def work() -> None:
        mounts.separate(seen, "/mnt", without=tmp_path / "state")
        said.append(Path("/proc/thread-self/mountinfo").read_text())

    try:
        namespaces.aside(work)
        place = str(inner).replace(" ", "\\040")
        assert place not in said[0]
        assert place in Path("/proc/self/mountinfo").read_text()
    finally:
        subprocess.run(["umount", str(inner)], check=True)
