"""Processes by identity: a recycled pid is never taken for the one that was meant."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from bazaar.host import processes
from bazaar.host.processes import Identity


def sleeper(*words: str) -> subprocess.Popen:
    child = subprocess.Popen(list(words) or ["sleep", "60"])
    # exec(2) tells of its success some moments before the new command line is there.
    deadline = time.monotonic() + 5
    while not processes.command_line(child.pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    return child


def test_identity_ends_with_its_process():
    child = sleeper()
    identity = processes.identify(child.pid)
    assert identity and processes.alive(identity)
    assert abs(processes.started_at(identity) - time.time()) < 5
    assert processes.command_line(child.pid) == ("sleep", "60")
    child.kill()
    assert processes.wait(identity, 5)
    assert not processes.alive(identity), "a zombie runs no more"
    child.wait()
    assert processes.identify(child.pid) is None and processes.command_line(child.pid) == ()
    assert processes.pidfd(identity) is None and not processes.send(identity, signal.SIGTERM)


def test_a_recycled_pid_is_spared():
    child = sleeper()
    try:
        mine = processes.identify(child.pid)
        other = Identity(mine.pid, mine.start - 1)
        assert not processes.alive(other) and processes.pidfd(other) is None
        assert not processes.send(other, signal.SIGKILL)
        assert processes.terminate(other, 0.1) and processes.wait(other, 0)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_pids_that_name_no_one_process_are_refused():
    for pid in (0, -1, -os.getpid()):
        assert processes.identify(pid) is None
        assert not processes.alive(Identity(pid, 0)) and not processes.send(Identity(pid, 0), 15)


def test_terminate_asks_and_then_makes():
    polite = sleeper()
    assert processes.terminate(processes.identify(polite.pid), 5)
    assert polite.wait() == -signal.SIGTERM
    program = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(60)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    deaf.stdout.readline()
    assert processes.terminate(processes.identify(deaf.pid), 0.1)
    assert deaf.wait() == -signal.SIGKILL
    deaf.stdout.close()


def test_wait_gives_up():
    child = sleeper()
    begin = time.monotonic()
    assert not processes.wait(processes.identify(child.pid), 0.1)
    assert time.monotonic() - begin < 5
    child.kill()
    child.wait()


def test_names_with_brackets_and_spaces(tmp_path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = sleeper(str(program), "60")
    try:
        assert processes.identify(child.pid).start == processes.start_time(child.pid) > 1
    finally:
        child.kill()
        child.wait()


def test_a_subreaper_learns_how_orphans_end():
    program = (
        "import os, sys, time\n"
        "from bazaar.host import processes\n"
        "processes.become_subreaper()\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(0.2); os._exit(7)\n"
        "    os._exit(0)\n"
        "print(sorted(processes.exit_code(os.waitpid(-1, 0)[1]) for _ in range(2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[0, 7]\n"


def test_exit_codes_are_a_shells():
    child = sleeper()
    child.kill()
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0  # it is reaped
    assert processes.exit_code(status) == 137
