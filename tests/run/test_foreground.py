"""`bazaar run` in the foreground: streams, signals, exit codes; the command itself is run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from bazaar.host import mounts
from bazaar.run import containers
from tests.run.conftest import left, needs_limits


@pytest.fixture
def run(root_image, state, engine):
    """Runs `bazaar run` on the small root; checks that nothing of it stays."""
    names: list[str] = []

    def start(*words, options=(), **keywords):
        name = f"t{os.getpid()}-{len(names)}-{os.urandom(3).hex()}"
        names.append(name)
        command = [sys.executable, "-m", "bazaar", "run", "--network", "none", "--engine", engine]
        command += ["--name", name, *options, root_image.reference, "--", *words]
        keywords = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | keywords
        return subprocess.Popen(command, **keywords)

    yield start
    for name in names:
        assert not left(f"run.{name}")


def finish(process, data=None):
    out, err = process.communicate(data, timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 255])
def test_the_exit_code_is_the_commands_own(run, code):
    assert finish(run("/bin/sh", "-c", f"exit {code}")) == (code, b"", b"")


def test_streams_are_separate_and_exact(run):
    data = bytes(range(256)) * 2000
    code, out, err = finish(
        run("/bin/sh", "-c", "cat; echo bad >&2", options=["-i"], stdin=subprocess.PIPE), data
    )
    assert code == 0 and out == data and err == b"bad\n"


def test_without_i_it_reads_nothing(run):
    assert finish(run("/bin/cat", stdin=subprocess.PIPE), b"data") == (0, b"", b"")


def test_files_are_appended_to_never_written_over(run, tmp_path):
    place, source = tmp_path / "out", tmp_path / "in"
    place.write_text("before\n")
    source.write_text("first\nsecond\n")
    with place.open("a") as out, source.open() as into:
        into_number = into.fileno()
        os.lseek(into_number, 6, os.SEEK_SET)
        process = run("/bin/sh", "-c", "cat; echo end", options=["-i"], stdin=into, stdout=out)
        assert process.wait(60) == 0
        os.write(out.fileno(), b"after\n")
    assert place.read_text() == "before\nsecond\nend\nafter\n"


@pytest.mark.parametrize(
    ("command", "code"), [("python9", 127), ("/etc/passwd", 126), ("/tmp", 126)]
)
def test_what_cannot_be_run(run, command, code):
    status, out, err = finish(run(command))
    assert (status, out) == (code, b"")
    assert err.startswith(f"bazaar: {command}: ".encode())


def test_a_signal_is_passed_on(run):
    process = run("/bin/sh", "-c", "trap 'exit 33' USR1; echo ready; while :; do sleep 0.05; done")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[0] == 33


def test_a_signal_that_ends_it_is_128_and_more(run):
    # A first process of a pid namespace is ended by no signal from inside that it does not handle.
    assert finish(run("/bin/sh", "-c", "sh -c 'kill -9 $$'"))[0] == 137


# `read` echoes through the container's own terminal; its size is ours.
ON_TERMINAL = "test -t 0 && test -t 1 && echo tty; read x; echo got $x; read y; echo $y; exit 4"


@contextlib.contextmanager
def typing_on():
    """A terminal somebody types a word on before anything listens, and one after."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    before = termios.tcgetattr(slave)
    os.write(master, b"early\r")
    try:
        yield {"stdin": slave, "stdout": slave, "stderr": slave}, master
        assert termios.tcgetattr(slave) == before, "the caller's terminal is as it was"
    finally:
        os.close(master)
        os.close(slave)


def answers(process: subprocess.Popen, master: int) -> None:
    read_until(master, b"got early")
    os.write(master, b"later\r")
    read_until(master, b"later\r\nlater")
    assert process.wait(30) == 4


def test_terminal(run):
    with typing_on() as (streams, master):
        answers(run("/bin/sh", "-c", ON_TERMINAL, options=["-it"], **streams), master)


def test_terminal_of_what_is_executed(make, engine):
    spec = make("/bin/sleep", "60", engine=engine)
    containers.start(spec)
    command = [sys.executable, "-m", "bazaar", "exec", "-it", spec.name]
    with typing_on() as (streams, master):
        answers(subprocess.Popen([*command, "/bin/sh", "-c", ON_TERMINAL], **streams), master)
    with typing_on() as (streams, master):
        failed = subprocess.Popen([*command, "/nonesuch"], **streams)
        read_until(master, b"not found")
        assert failed.wait(30) == 127
    assert not list(containers.folder(spec.id).glob("exec-*"))


def read_until(descriptor: int, word: bytes, seconds: float = 30) -> bytes:
    seen = b""
    deadline = time.monotonic() + seconds
    while word not in seen and time.monotonic() < deadline:
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 4096)
    assert word in seen, seen
    return seen


def test_killing_the_runner_leaves_something_that_can_be_cleared(root_image, state, engine):
    name = f"t{os.getpid()}-{os.urandom(3).hex()}"
    command = [
        sys.executable,
        "-m",
        "bazaar",
        "run",
        "--network",
        "none",
        "--engine",
        engine,
        "--name",
        name,
    ]
    process = subprocess.Popen(
        [*command, root_image.reference, "--", "/bin/sh", "-c", "echo ready; sleep 60"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    # Its process may not have been recorded yet; that it runs shows all the same.
    assert containers.state(f"run.{name}").status == "running"
    containers.remove(f"run.{name}", force=True, timeout=0)
    assert not left(f"run.{name}")


def test_volumes_environment_user_and_place(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in").write_text("in\n")
    (tmp_path / "vars").write_text("# a comment\nFROM_FILE=file value\n\n")
    os.environ["T_BARE"] = "bare"
    options = [
        "-v",
        f"{tmp_path}/data:/data",
        "-v",
        f"{tmp_path}/data:/only:ro",
        "--tmpfs",
        "/scratch",
    ]
    options += [
        "-e",
        "A=1 2",
        "-e",
        "T_BARE",
        "--env-file",
        f"{tmp_path}/vars",
        "-w",
        "/data",
        "-u",
        "0:77",
    ]
    options += ["-h", "stall", "--mount", f"type=bind,src={tmp_path}/data/in,dst=/single,readonly"]
    script = (
        'echo "$A,$T_BARE,$FROM_FILE,$HOME,$HOSTNAME,$PWD"; cat in /only/in /single; id -g;'
        " echo out > /data/out; touch /scratch/x || exit 21;"
        " touch /only/x 2>/dev/null && exit 22; exit 0"
    )
    code, out, err = finish(run("/bin/sh", "-c", script, options=options))
    assert (code, err) == (0, b"")
    assert out.decode().splitlines() == [
        "1 2,bare,file value,/root,stall,/data",
        "in",
        "in",
        "in",
        "77",
    ]
    assert (tmp_path / "data" / "out").read_text() == "out\n"


def test_users_by_name_have_their_groups(run):
    code, out, _ = finish(run("/usr/bin/id", options=["-u", "ann"]))
    assert code == 0 and out.startswith(b"uid=1234(ann) gid=1234(ann) groups=1234(ann),77(blue)")
    code, _, err = finish(run("/usr/bin/id", options=["-u", "nobody-there"]))
    assert code == 125 and b"unable to find user nobody-there" in err


def test_read_only_root(run):
    assert finish(run("/bin/touch", "/x", options=["--read-only"]))[0] == 1
    assert finish(run("/bin/touch", "/x"))[0] == 0


def test_the_image_itself_stays_as_it_was(run, root_image):
    assert finish(run("/bin/sh", "-c", "echo changed > /etc/passwd; echo x > /new"))[0] == 0
    assert (root_image.layers[0] / "etc/passwd").read_text().startswith("root:")
    assert not (root_image.layers[0] / "new").exists()


def test_memory_limit_is_137(run):
    needs_limits()
    script = "x=0123456789abcdef; while :; do x=$x$x; done"
    assert finish(run("/bin/sh", "-c", script, options=["--memory", "64m"]))[0] == 137


def test_a_network_namespace_that_is_given(run, engine):
    name = f"bz-t{os.getpid()}-{os.urandom(3).hex()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        words = [
            "link",
            "add",
            f"bzt{os.urandom(4).hex()}",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            name,
        ]
        subprocess.run(["ip", *words], check=True)
        subprocess.run(["ip", "-n", name, "addr", "add", "192.0.2.6/30", "dev", "eth0"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "eth0", "up"], check=True)
        # gVisor has no address files but /proc/net; what counts is that the interface is there.
        code, out, err = finish(run("/bin/cat", "/proc/net/dev", options=["--network", name]))
        assert code == 0, err
        assert b"eth0" in out
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    code, _, err = finish(run("/bin/cat", options=["--network", name]))
    assert code == 125 and b"no network namespace" in err


def test_entrypoint_replaces(run):
    code, out, _ = finish(run("-c", "echo $0 $1", "a", "b", options=["--entrypoint", "/bin/sh"]))
    assert (code, out) == (0, b"a b\n")


# The way to the world, which may be ready after the container has begun, fails.
NO_WAY = """
import sys
from bazaar.errors import NetworkError
from bazaar.host import outbound

def fail(*_):
    raise NetworkError("no way out", hint="mend it")

outbound.allow = fail
from bazaar.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_its_way_to_the_world_it_does_not_run(root_image, state, engine):
    name = f"t{os.getpid()}-{os.urandom(3).hex()}"
    words = ["run", "--engine", engine, "--name", name, root_image.reference, "--"]
    done = subprocess.run(
        [sys.executable, "-c", NO_WAY, *words, "/bin/sleep", "60"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "no way out" in done.stderr and "mend it" in done.stderr
    assert not left(f"run.{name}")
    processes = subprocess.run(
        ["ps", "-e", "-o", "args"], check=True, capture_output=True, text=True
    ).stdout
    assert f"run.{name}" not in processes


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_little_is_loaded_before_the_engine_starts(root_image, state, gvisor, network):
    code = (
        "import sys; sys.path += sys.argv.pop(1).split(':')\n"
        "from bazaar.run import launch\n"
        "heavy = {'typing', 'threading', 'subprocess', 'socket', 'hashlib', 'dataclasses',\n"
        "    'inspect', 'click', 'pydantic', 'asyncio'}\n"
        "def spawn(*_):\n"
        "    print('loaded:', *heavy & set(sys.modules))\n"
        "    raise OSError('enough')\n"
        "launch.spawn = spawn\n"
        "from pathlib import Path\n"
        "from bazaar.cli import run_request\n"
        "from bazaar.model.container import Image\n"
        "folder = Path(sys.argv[4].partition(':')[2])\n"
        "run_request._image = lambda request: Image(request.image, 'a:b', (folder,))\n"
        "from bazaar.__main__ import main; main()"
    )
    # An image of packages that is cached needs no more; one of a directory is looked through.
    words = ["run", "--network", network, root_image.reference, "--", "/bin/cat"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, ":".join(filter(None, sys.path)), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "loaded:\n", done.stderr


def test_a_read_only_volume_is_out_of_reach_whatever_the_engine_does(run, tmp_path):
    """gVisor alone would empty the file before it refuses to open it."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "below").mkdir()
    mounts.mount("tmpfs", tmp_path / "below", "tmpfs")
    try:
        (tmp_path / "below/too").write_text("too")
        options = ["-v", f"{tmp_path}:/v:ro", "-v", f"{tmp_path}/kept:/one:ro"]
        script = "(: >/v/kept); (: >/v/below/too); (: >/one); cat /v/kept /v/below/too /one"
        code, out, err = finish(run("/bin/sh", "-c", script, options=options))
        assert (code, out) == (0, b"kepttookept") and err.count(b"Read-only") == 3
        assert (tmp_path / "kept").read_text() == "kept"
        assert (tmp_path / "below/too").read_text() == "too"
    finally:
        mounts.unmount(tmp_path / "below")
