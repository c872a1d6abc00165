"""Engines: what is there, how one is judged, and how one is got."""

from __future__ import annotations

import hashlib
import http.server
import os
import platform
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bazaar.errors import ChecksumError, MissingError, UsageError
from bazaar.host import paths, processes
from bazaar.run import engines
from bazaar.run.engines import acquire, gvisor
from tests.run.conftest import usable


def test_every_engine_says_how_it_isolates():
    found = engines.available()
    assert [one.name for one in found] == ["gvisor", "shared"]
    assert "kernel of its own" in found[0].isolation and "host's kernel" in found[1].isolation
    assert all(one.path or (one.problem and one.hint) for one in found)


def test_unknown_engines_are_refused():
    with pytest.raises(UsageError, match="no engine 'docker'"):
        engines.get("docker")


@pytest.fixture
def program(tmp_path, cache, monkeypatch):
    """Writes a program that stands where runsc would."""
    if os.geteuid() != 0:
        pytest.skip("judging a runsc takes root")

    def write(script: str) -> Path:
        path = tmp_path / "runsc"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("BAZAAR_RUNSC", str(path))
        return path

    return write


def test_a_runsc_that_refuses_networks_is_not_taken(program):
    path = program("echo 'cannot run with network enabled in root network namespace' >&2; exit 128")
    assert "cannot run with network" in gvisor.prove(path)
    status = gvisor.GVisor().status()
    assert status.path is None and "cannot run with network" in status.problem
    with pytest.raises(MissingError, match="cannot run with network"):
        engines.ensure("gvisor", lambda _: None)


def test_a_verdict_is_remembered_until_the_program_changes(program, tmp_path):
    counter = tmp_path / "count"
    path = program(f"echo x >> {counter}; exit 3")
    assert gvisor.prove(path) == gvisor.prove(path) == "it ended with exit code 3 and no word"
    assert counter.read_text() == "x\n"
    path = program(f"echo x >> {counter}; exit 44")
    assert "exit code 44" in gvisor.prove(path)
    assert counter.read_text() == "x\nx\n"


def test_one_that_hangs_is_given_up(program):
    from bazaar.run.engines import proof

    path = program("case $* in *delete*) exit;; esac; exec sleep 60")
    assert "no answer" in proof.run_with_network(path, timeout=0.5).problem
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert "bz-try-" not in left


def test_one_whose_delete_hangs_too_is_given_up(program, tmp_path):
    from bazaar.run.engines import proof

    # As a sandbox: a process of another group, in the container's network namespace.
    script = f"""case $* in *delete*) exec sleep 60;; esac
for name; do :; done
ip netns exec $name setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 60' >/dev/null 2>&1 &
exec sleep 60"""
    found = proof.run_with_network(program(script), timeout=2, patience=0.5)
    assert "no answer" in found.problem and not found.refused
    deadline = time.monotonic() + 5
    while processes.identify(int((tmp_path / "pid").read_text())) is not None:
        assert time.monotonic() < deadline, "its sandbox lives on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "script",
    ["echo 'mkdir /x: no space left on device' >&2; exit 128", "kill -9 $$", "sleep 60"],
)
def test_what_may_pass_is_not_remembered(program, script, monkeypatch):
    from bazaar.run.engines import proof

    path = program(script)
    monkeypatch.setattr(proof.run_with_network, "__defaults__", (0.5, 0.5))
    assert gvisor.prove(path)
    assert gvisor.proved(path) is None


def test_what_an_older_version_remembered_may_have_passed(program):
    path = program("exit 3")
    assert gvisor.prove(path) and gvisor.proved(path)
    [record] = (paths.cache() / "bin" / "proofs").iterdir()
    record.write_text('{"problem": "no answer within 30 s"}')
    assert gvisor.proved(path) is None
    record.write_text('{"problem": ""}')
    assert gvisor.proved(path) == ""


def test_the_one_that_is_used_works_with_a_network():
    usable("gvisor")
    from bazaar.run.engines import proof

    path = engines.ensure("gvisor", lambda _: None)
    assert proof.run_with_network(path).problem == ""


@pytest.fixture
def release(tmp_path):
    """gVisor's release as a web server on loopback; yields its folder and address."""
    folder = tmp_path / "web" / platform.machine()
    folder.mkdir(parents=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder.parent))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_release_is_downloaded_and_checked(release, cache):
    folder, address = release
    data = os.urandom(3 << 20)
    (folder / "runsc").write_bytes(data)
    (folder / "runsc.sha512").write_text(hashlib.sha512(data).hexdigest() + "  runsc\n")
    path = acquire.release(lambda _: None, address)
    assert (
        path.read_bytes() == data and path.stat().st_mode & 0o111 and path.parent == cache / "bin"
    )
    (folder / "runsc").unlink()
    assert acquire.release(lambda _: None, address) == path, "it is known by its checksum"


@pytest.mark.parametrize("text", ["", "not a checksum", "0" * 128, "<html>"])
def test_a_release_with_another_checksum_is_refused(release, cache, text):
    folder, address = release
    (folder / "runsc").write_bytes(b"something else")
    (folder / "runsc.sha512").write_text(text)
    with pytest.raises(ChecksumError, match="checksum"):
        acquire.release(lambda _: None, address)
    assert not [path for path in (cache / "bin").glob("*") if path.is_file()]


def test_a_release_that_cannot_be_reached(cache, release):
    _, address = release
    with pytest.raises(MissingError, match="cannot be had"):
        acquire.release(lambda _: None, address + "/nowhere")


def test_without_go_and_without_an_archive_it_says_so(cache, monkeypatch, tmp_path):
    from bazaar.host import apt_sources, debian_go

    monkeypatch.setattr(apt_sources, "read", list)
    with pytest.raises(MissingError, match="no Go client"):
        debian_go.get(lambda _: None)


@pytest.mark.slow
def test_runsc_is_built_from_its_module(cache, monkeypatch):
    monkeypatch.delenv("BAZAAR_RUNSC", raising=False)
    path = acquire.build(lambda _: None)
    assert gvisor.prove(path) == ""


@pytest.mark.slow
def test_debian_has_a_go_that_can(cache):
    from bazaar.host import debian_go

    go = debian_go.get(lambda _: None)
    said = subprocess.run(
        [go, "version"],
        capture_output=True,
        text=True,
        env={"GOTOOLCHAIN": "local", "HOME": "/", "PATH": ""},
        check=True,
    )
    assert "go1.23" in said.stdout
