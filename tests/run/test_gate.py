"""A container waits at its gate for what is made beside its start, with real engines."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time

import pytest

from bazaar.model.container import Mount
from bazaar.run import containers
from tests.run.conftest import left, processes_of

# Runs a container whose network does as the words say when it is completed.
PROGRAM = """
import os, pathlib, pickle, sys, time
from bazaar.errors import BazaarError, NetworkError
from bazaar.run import interactive
spec, folder, then = pickle.load(sys.stdin.buffer)

class Network:
    def begin(self):
        pass

    def complete(self):
        time.sleep(0.7)  # longer than an engine takes
        if then == "fail":
            raise NetworkError("no address is left")
        if then == "die":
            os.kill(os.getpid(), 9)
        pathlib.Path(folder, "network").write_text("whole")

try:
    sys.exit(interactive.foreground(spec, network=Network()))
except BazaarError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def run(make, engine, tmp_path):
    def run(then: str):
        command = ("/bin/sh", "-c", "cat /m/network && echo ran >/m/ran")
        spec = make(*command, engine=engine, mounts=(Mount(tmp_path, "/m"),))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=pickle.dumps((spec, str(tmp_path), then)),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return spec.id, done

    return run


def test_nothing_runs_before_its_network_is_whole(run, tmp_path):
    _, done = run("go on")
    assert (done.returncode, done.stdout) == (0, b"whole"), done.stderr
    assert (tmp_path / "ran").exists()


def test_a_network_that_fails_is_the_failure(run, tmp_path):
    container, done = run("fail")
    assert done.returncode == 1
    assert done.stderr.decode().endswith("\nNetworkError: no address is left\n")
    assert not (tmp_path / "ran").exists()
    assert not left(container)


def test_a_killed_runner_lets_nobody_through(run, tmp_path):
    container, done = run("die")
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while processes_of(container) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (tmp_path / "ran").exists()
    containers.sweep(lambda _: None)
    assert not left(container)
