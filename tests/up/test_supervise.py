"""Real supervisors of a bazaar that has nothing in it: how they start, are found, and end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bazaar.errors import StateError
from bazaar.host import paths, processes
from bazaar.host.files import lock
from bazaar.up import client, guardian

ROOT = Path(__file__).resolve().parents[2]
START = "from bazaar.up import client; client.ensure_supervisor({!r})"
# Adopts orphans, as a session's systemd does.
ADOPTER = f"""
import sys, time
from bazaar.host import processes
processes.become_subreaper()
{START}
print("ready", flush=True)
time.sleep(600)
"""
# Its child is slow to get to its handlers.
SLOW = """
import time
from bazaar.up import guardian
work = guardian.supervise
def slow(*words):
    print("forked", flush=True)
    time.sleep(1)
    return work(*words)
guardian.supervise = slow
raise SystemExit(guardian.guard({!r}))
"""


@pytest.fixture
def name(state):
    made = f"s{os.getpid()}"
    yield made
    for one in guardian.find(made):
        processes.send(one, signal.SIGKILL)


def wait_for(condition, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(name, launcher):
    """Supervise as one of the ways to start it does; its first process."""
    if launcher == "up":
        client.ensure_supervisor(name)
        return None
    process = subprocess.Popen(
        [str(ROOT / "bazaar"), "supervise", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: all(client.supervision(name)))
    return process


@pytest.mark.parametrize("launcher", ["up", "launcher"])
@pytest.mark.parametrize("stopped", [False, True])
def test_it_is_found_and_ended_by_whatever_it_was_started(name, launcher, stopped):
    run(name, launcher)
    found = guardian.find(name)
    assert len(found) == 2
    assert processes.command_line(found[0].pid)[-2:] == ("supervise", name)
    if stopped:
        os.kill(found[1].pid, signal.SIGSTOP)
    guardian.end(name)
    assert not any(processes.alive(one) for one in found)


def test_the_same_name_in_another_state_folder_is_another(name, tmp_path, monkeypatch):
    client.ensure_supervisor(name)
    found = guardian.find(name)
    with monkeypatch.context() as other:
        (tmp_path / "other").mkdir()
        other.setenv("BAZAAR_STATE", str(tmp_path / "other"))
        assert guardian.find(name) == []
        guardian.end(name)
    assert all(processes.alive(one) for one in found)


def test_a_second_one_says_who_supervises(name):
    client.ensure_supervisor(name)
    second = subprocess.run(
        [str(ROOT / "bazaar"), "supervise", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 1
    holder = guardian.find(name)[0].pid
    assert f"is supervised already, by process {holder} (supervise)" in second.stderr


def test_a_lost_guardian_is_noticed_and_replaced(name):
    client.ensure_supervisor(name)
    old = guardian.find(name)
    processes.send(old[0], signal.SIGKILL)
    wait_for(lambda: client.supervision(name) == (True, False))
    client.ensure_supervisor(name)
    assert client.supervision(name) == (True, True)
    assert not any(processes.alive(one) for one in old)
    assert len(guardian.find(name)) == 2


def test_whoever_adopted_a_supervisor_is_not_killed(name):
    adopter = subprocess.Popen(
        [sys.executable, "-c", ADOPTER.format(name)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert adopter.stdout is not None
        assert adopter.stdout.readline() == "ready\n"
        found = guardian.find(name)
        processes.send(found[0], signal.SIGKILL)
        wait_for(lambda: client.supervision(name) == (True, False))
        status = Path(f"/proc/{found[1].pid}/status").read_text()
        assert f"PPid:\t{adopter.pid}\n" in status
        guardian.end(name)
        assert adopter.poll() is None
        assert not processes.alive(found[1])
    finally:
        adopter.kill()
        adopter.communicate()


def test_what_keeps_it_from_starting_is_said_and_nothing_stays(name):
    with (
        lock(paths.bazaar(name) / "supervisor.lock", "a test"),
        pytest.raises(StateError) as caught,
    ):
        client.ensure_supervisor(name, patience=5)
    assert f"process {os.getpid()} (a test)" in caught.value.message
    assert guardian.find(name) == []


def test_a_relative_state_folder(name, tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", START.format(name)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "BAZAAR_STATE": "state"},
        timeout=30,
    )
    assert client.supervision(name) == (True, True)
    assert len(guardian.find(name)) == 2
    assert not Path("/state").exists()


def test_a_signal_before_the_child_listens_is_kept_for_it(name):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(name)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child[0]), signal.SIGTERM)
        assert process.stdout.readline() == ""  # no second child
        assert process.wait(30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def test_one_that_was_never_told_anything_goes_down(name):
    client.ensure_supervisor(name)  # and `up` was killed right after that
    down = subprocess.run(
        [str(ROOT / "bazaar"), "down", name], capture_output=True, text=True, check=False
    )
    assert down.returncode == 0, down.stderr
    assert guardian.find(name) == []
    assert not paths.bazaar(name).exists()
