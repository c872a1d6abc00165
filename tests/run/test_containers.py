"""Detached containers, with real engines: they outlive who started them and end truthfully."""

from __future__ import annotations

import concurrent.futures
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bazaar.errors import EngineError
from bazaar.host import cgroups, processes
from bazaar.model.container import Limits, Mount
from bazaar.run import containers, launch, records
from tests.run.conftest import left, needs_limits, processes_of, usable


def text(container: str, stream: str = "stdout") -> list[str]:
    return [line.text.decode() for line in containers.logs(container) if line.stream == stream]


def until(check, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
    return found


def test_a_container_runs_writes_and_ends(make, engine):
    spec = make(
        "/bin/sh", "-c", "echo out; echo err >&2; exit 7", engine=engine, labels=(("site", "x"),)
    )
    state = containers.start(spec)
    assert state.status == "running" and state.pid > 0
    assert containers.wait(spec.id, 20) == 7
    after = containers.state(spec.id)
    assert (after.status, after.exit_code, after.pid) == ("stopped", 7, 0)
    assert after.labels == (("site", "x"),)
    assert text(spec.id) == ["out"] and text(spec.id, "stderr") == ["err"]
    assert after in containers.listing()
    containers.remove(spec.id)
    assert containers.state(spec.id) is None


def test_stop_asks_first(make, engine):
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    spec = make("/bin/sh", "-c", script, engine=engine)
    containers.start(spec)
    until(lambda: "ready" in text(spec.id))
    assert containers.stop(spec.id, timeout=10) == 3
    assert "asked" in text(spec.id)


def test_stop_kills_who_does_not_listen(make, engine):
    spec = make(
        "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", engine=engine
    )
    containers.start(spec)
    until(lambda: "ready" in text(spec.id))
    assert containers.stop(spec.id, timeout=0.2) == 137


def test_remove_refuses_what_runs(make, engine):
    spec = make("/bin/sleep", "60", engine=engine)
    containers.start(spec)
    with pytest.raises(EngineError, match="is running"):
        containers.remove(spec.id)
    containers.remove(spec.id, force=True, timeout=0)
    assert not left(spec.id)


def test_a_name_is_taken_once(make, gvisor):
    spec = make("/bin/sleep", "60", engine=gvisor)
    containers.start(spec)
    with pytest.raises(EngineError, match="is taken"):
        containers.start(spec)
    assert containers.state(spec.id).status == "running"


@pytest.mark.parametrize(
    ("command", "code"), [("/nothing", 127), ("nothing", 127), ("/etc/passwd", 126)]
)
def test_a_command_that_cannot_run_leaves_nothing(make, engine, command, code):
    spec = make(command, engine=engine)
    with pytest.raises(EngineError) as caught:
        containers.start(spec)
    assert caught.value.exit_code == code
    assert not left(spec.id)


def test_the_engine_judges_what_lies_in_a_mount(make, engine, tmp_path):
    spec = make("/here/nothing", engine=engine, mounts=(Mount(tmp_path, "/here"),))
    with pytest.raises(EngineError) as caught:
        containers.start(spec)
    assert caught.value.exit_code == 127
    assert not left(spec.id)


def test_it_outlives_who_started_it(make, engine, root_image, state):
    spec = make("/bin/sh", "-c", "sleep 1; exit 5", engine=engine)
    program = (
        "import sys, pickle, os\n"
        "from bazaar.run import containers\n"
        "containers.start(pickle.load(sys.stdin.buffer))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import pickle

    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(spec), check=False)
    assert done.returncode == -signal.SIGKILL
    assert containers.state(spec.id).status == "running"
    descriptor = containers.exit_fd(spec.id)
    assert select.select([descriptor], [], [], 20)[0]
    os.close(descriptor)
    assert containers.wait(spec.id, 5) == 5


def test_a_killed_sandbox_is_noticed(make, engine):
    spec = make("/bin/sleep", "60", engine=engine)
    state = containers.start(spec)
    os.kill(state.pid, signal.SIGKILL)
    assert containers.wait(spec.id, 10) == 137
    assert containers.state(spec.id).status == "stopped"
    until(lambda: not processes_of(spec.id))


def test_a_killed_shim_leaves_the_truth(make, engine):
    spec = make("/bin/sleep", "60", engine=engine)
    state = containers.start(spec)
    record = launch.load(containers.folder(spec.id), "process.json")
    os.kill(record["shim"], signal.SIGKILL)
    until(lambda: processes.identify(record["shim"]) is None)
    assert containers.state(spec.id).status == "running", "the container itself still runs"
    assert not containers.tended(spec.id)
    os.kill(state.pid, signal.SIGKILL)
    assert containers.wait(spec.id, 10) == 137
    assert containers.state(spec.id).status == "stopped"
    containers.remove(spec.id)
    assert not left(spec.id)


def test_it_is_tended_when_nobody_waits_for_its_start(make, engine):
    # As when whoever asked for it is killed while the engine starts.
    spec = make("/bin/sh", "-c", "sleep 0.5; echo out; exit 5", engine=engine)
    asked = containers.prepare(spec)
    ready, report = os.pipe()
    os.close(ready)
    command = containers.shim_command(asked, report)
    subprocess.run(command, pass_fds=(report,), check=True, timeout=20)
    os.close(report)
    until(lambda: containers.tended(spec.id))
    assert containers.wait(spec.id, 20) == 5
    assert text(spec.id) == ["out"]


def test_shim_and_sandbox_killed_together(make, engine):
    spec = make("/bin/sleep", "60", engine=engine)
    state = containers.start(spec)
    record = launch.load(containers.folder(spec.id), "process.json")
    os.kill(record["shim"], signal.SIGKILL)
    os.kill(state.pid, signal.SIGKILL)
    until(lambda: containers.state(spec.id).status == "stopped")
    assert containers.state(spec.id).exit_code is None, "nobody saw how it ended"
    containers.remove(spec.id)
    assert not left(spec.id)


def test_a_follower_ends_with_its_reader_though_nothing_is_written(make, gvisor):
    spec = make("/bin/sh", "-c", "echo first; sleep 60", engine=gvisor)
    containers.start(spec)
    words = [sys.executable, "-m", "bazaar", "logs", "-f", spec.name]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        assert process.wait(20) == 141


def test_what_was_not_recorded_is_known_by_the_engines_pid_file(tmp_path):
    """As where its runner was killed at once, and control groups cannot be made."""
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "pid").write_text(f"{process.pid}")
        assert records.stray(tmp_path) == processes.identify(process.pid)
        long_ago = time.time() - 3600  # then it was another's pid
        os.utime(tmp_path / "pid", (long_ago, long_ago))
        assert records.stray(tmp_path) is None
        process.kill()
    (tmp_path / "pid").write_text("")
    assert records.stray(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", '{"id": 3', "[]", "\0\xff"])
def test_a_record_cut_short_can_be_cleared_away(make, gvisor, content):
    spec = make("/bin/sleep", "60", engine=gvisor)
    state = containers.start(spec)
    (containers.folder(spec.id) / "process.json").write_text(content)
    containers.remove(spec.id, force=True)
    assert not left(spec.id)
    assert processes.identify(state.pid) is None, "what it could not name any more is gone too"


def test_memory_limit(make, engine):
    needs_limits()
    # tail keeps the whole of an endless line in memory.
    script = "x=0123456789abcdef; while :; do x=$x$x; done"
    spec = make("/bin/sh", "-c", script, engine=engine, limits=Limits(memory=64 << 20))
    containers.start(spec)
    assert containers.wait(spec.id, 60) == 137


def test_process_limit(make):
    needs_limits()
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    spec = make("/bin/sh", "-c", script, engine=usable("shared"), limits=Limits(pids=4))
    containers.start(spec)
    assert containers.wait(spec.id, 20) != 0
    assert "fork" in "".join(text(spec.id, "stderr"))


def test_its_own_v2_group_tells_it_apart(make, engine):
    if reason := cgroups.problem():
        # runc then chooses a place itself: test_read_only_groups.py.
        pytest.skip(f"control groups: {reason}")
    spec = make("/bin/sleep", "60", engine=engine)
    state = containers.start(spec)
    folder = cgroups.v2_folder(spec.id)
    if folder is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    members = set(map(int, (folder / "cgroup.procs").read_text().split()))
    assert state.pid in members
    line = next(
        line
        for line in Path(f"/proc/{state.pid}/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    assert line.endswith(f"/bazaar/{spec.id}")


def test_many_at_once(make, gvisor):
    specs = [
        make("/bin/sh", "-c", f"echo {number}; exit {number}", engine=gvisor) for number in range(6)
    ]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(containers.start, specs))
    assert [containers.wait(spec.id, 30) for spec in specs] == list(range(6))
    assert [text(spec.id) for spec in specs] == [[str(number)] for number in range(6)]


def test_secrets_are_in_no_argument_and_no_readable_file(make, engine):
    secret = "s3cret-" + os.urandom(8).hex()
    spec = make(
        "/bin/sh",
        "-c",
        "echo $WORD | cat; sleep 60",
        engine=engine,
        environment=(("WORD", secret),),
    )
    containers.start(spec)
    until(lambda: secret in text(spec.id))
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                assert secret.encode() not in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    folder = containers.folder(spec.id)
    assert folder.stat().st_mode & 0o077 == 0
    holders = [
        path for path in folder.iterdir() if path.is_file() and secret.encode() in path.read_bytes()
    ]
    assert {path.name for path in holders} == {"config.json", "log"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)


def test_execute(make, engine, capfd):
    spec = make("/bin/sleep", "60", engine=engine, environment=(("A", "1"),))
    containers.start(spec)
    script = "echo $A $B; id -u; echo bad >&2; exit 9"
    code = containers.execute(
        spec.id, ["/bin/sh", "-c", script], environment=(("B", "2"),), user="ann"
    )
    assert code == 9
    out, err = capfd.readouterr()
    assert out.split() == ["1", "2", "1234"] and err == "bad\n"
    for command, expected in (("/nothing", 127), ("nothing", 127), ("/etc/passwd", 126)):
        with pytest.raises(EngineError) as caught:
            containers.execute(spec.id, [command])
        assert caught.value.exit_code == expected
        assert caught.value.message.startswith(f"{command}: ")
        assert capfd.readouterr().err == ""  # the engine's own words would be the second ones
    # A program that came with the container's life is in no image.
    script = "cp /bin/sh /bin/fresh"
    assert containers.execute(spec.id, ["/bin/sh", "-c", script]) == 0
    assert containers.execute(spec.id, ["fresh", "-c", "echo here >&2; exit 3"]) == 3
    assert capfd.readouterr().err == "here\n"
    assert containers.state(spec.id).status == "running"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "x" * 200, "a\nb", "a b"])
def test_ids_are_no_paths(name):
    with pytest.raises(EngineError):
        containers.folder(name)
