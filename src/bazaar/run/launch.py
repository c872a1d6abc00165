"""Starting one container's processes, learning how they end, and clearing up after them.

Used by the foreground run and by the shim of detached ones. Both are subreapers: the engine
starts the container and exits, and what it leaves behind becomes our child, whose end only we
learn. This module imports little: every container's shim holds it in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import EngineError
from bazaar.host import cgroups, processes
from bazaar.model.record import record
from bazaar.typed import Any, cast

_SYS_CLONE3 = 435  # the same on every architecture
_CLONE_INTO_CGROUP = 0x200000000
# PyDLL keeps the interpreter's lock: the child must own it when it comes to life.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@record
class Launch:
    """What it takes to start a container and to clear up after it; kept as launch.json."""

    id: str
    engine: str
    command: tuple[str, ...]  # the engine's program and its global options
    cgroups: tuple[str, ...]  # directories the engine's process is put into first
    folder: str
    stop_signal: int = 15
    poststop: tuple[str, ...] = ()  # run by the shim when all else is done

    @property
    def engine_id(self) -> str:
        """What the engine calls it. runsc takes the beginning of an id for the id where only one
        container begins so: the mark at the end, which our ids cannot have, rules that out."""
        return f"{self.id}+"

    def path(self, name: str) -> Path:
        """A file of the container's directory."""
        return Path(self.folder) / name


def store(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Write a small JSON file of the container's directory by rename.

    Without fsync: a container does not survive what would lose it.
    """
    temporary = folder / f".{name}.{os.getpid()}"
    temporary.write_text(json.dumps(value))
    temporary.chmod(0o600)
    temporary.replace(folder / name)


def load(folder: Path, name: str) -> dict[str, Any] | None:
    """Read what `store` wrote; None when it is missing or cut short."""
    try:
        value = json.loads((folder / name).read_text())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def read(folder: Path) -> Launch | None:
    """The launch of a container's directory; None when it holds none."""
    value = load(folder, "launch.json")
    if value is None:
        return None
    try:
        return Launch(
            id=str(value["id"]),
            engine=str(value["engine"]),
            command=tuple(map(str, value["command"])),
            cgroups=tuple(map(str, value["cgroups"])),
            folder=str(folder),
            stop_signal=int(value["stop_signal"]),
            poststop=tuple(map(str, value.get("poststop", ()))),
        )
    except (TypeError, KeyError, ValueError):
        return None


def boot_id() -> str:
    """This boot: start times of processes mean nothing in another."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start(
    launch: Launch,
    stdio: tuple[int, int, int],
    *,
    console: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Have the engine start the container; the pid of its process on the host, our child.

    ``stdio`` are descriptors the container gets as its own. ``console`` is a socket on which
    the engine hands over the terminal. ``meanwhile`` is done beside it. Raises EngineError with
    docker's exit code.
    """
    pid_file = launch.path("pid")
    pid_file.unlink(missing_ok=True)
    arguments = [
        *launch.command,
        "run",
        "--detach",
        "--bundle",
        launch.folder,
        "--pid-file",
        str(pid_file),
    ]
    if console is not None:
        arguments += ["--console-socket", str(console)]
    engine = spawn([*arguments, launch.engine_id], stdio, launch.cgroups)
    try:
        if meanwhile is not None:
            meanwhile()
    finally:
        _, status = os.waitpid(engine, 0)
    if status != 0:
        raise failure(launch, processes.exit_code(status))
    return int(pid_file.read_text())


def spawn(arguments: list[str], stdio: tuple[int, int, int], groups: tuple[str, ...]) -> int:
    """fork and exec with ``stdio`` as descriptors 0 to 2, inside the control groups; the pid."""
    child, inside = fork_into(groups)
    if child:
        return child
    try:
        os.setsid()
        cgroups.add(Path(group) for group in groups if group != inside)
        copies = [os.dup(descriptor) for descriptor in stdio]
        for number, copy in enumerate(copies):
            os.dup2(copy, number)
        os.closerange(3, 4096)
        # PATH alone: the engine needs to know nothing of the caller's environment.
        os.execve(  # noqa: S606 - no shell is what is wanted
            arguments[0],
            arguments,
            {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
        )
    except OSError as error:
        os.write(2, f"{arguments[0]}: {error}\n".encode())
    finally:
        os._exit(125)


def fork_into(groups: tuple[str, ...]) -> tuple[int, str]:
    """fork, the child already inside one of the control groups; (its pid or 0, that group).

    clone3(2) with CLONE_INTO_CGROUP (Linux 5.7) takes a v2 group. Moving a process that
    runs already waits for the kernel's grace period, 17 ms at worst; being born there does not.
    """
    for group in groups:
        try:
            folder = os.open(group, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # struct clone_args: flags, five unused words, exit_signal at 32, cgroup at 80.
            words = [_CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder]
            arguments = struct.pack("<11Q", *words)
            child = int(_libc.syscall(_SYS_CLONE3, arguments, len(arguments)))
        finally:
            os.close(folder)
        if child >= 0:
            return child, group
    return os.fork(), ""


def failure(launch: Launch, code: int, log: str = "engine.log") -> EngineError:
    """The engine's last word on why it failed, as docker's 125, 126 or 127."""
    message = ""
    with contextlib.suppress(OSError):
        for line in launch.path(log).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                if entry["level"] in ("error", "fatal", "warning"):
                    message = str(entry["msg"])
    error = EngineError(
        f"{launch.engine}: {message or f'it ended with exit code {code} and no word'}"
    )
    last = message.lower()
    # "cannot create sandbox: … no such file" is the engine's own trouble, not the command's.
    if any(phrase in last for phrase in ("failed to load", 'exec: "', "exec /", "executable file")):
        if "no such file or directory" in last or "not found" in last:
            error.exit_code = 127
        elif "permission denied" in last or "is a directory" in last or "exec format error" in last:
            error.exit_code = 126
    return error


def reap(pid: int) -> int:
    """Wait until our child ``pid`` ends, reaping whatever else does; its wait status."""
    while True:
        child, status = os.waitpid(-1, 0)
        if child == pid:
            return status


def exit_code(launch: Launch, status: int) -> int:
    """The container's exit code: 137 also where a sandbox fell to the memory limit."""
    code = processes.exit_code(status)
    if code not in (0, 137) and launch.engine == "gvisor" and cgroups.memory_events(launch.id):
        return 137
    return code


def settle(launch: Launch, *, parent: bool) -> None:
    """Clear up after a container that ended: engine state, control groups, mounts.

    Safe to call again, and from another process than the container's ``parent``.
    """
    if parent:
        # The engine waits for its gofer to be gone for good, which a zombie is not.
        _reap_rest()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        # The engine's "no such container" is what is wanted; anything else shows below.
        child = spawn(
            [*launch.command, "delete", "--force", launch.engine_id], (null, null, null), ()
        )
        os.waitpid(child, 0)
    finally:
        os.close(null)
    kill_all(launch.id)
    if parent:
        _reap_rest()
    cgroups.remove(launch.id)
    from bazaar.host import mounts

    mounts.unmount_below(Path(launch.folder))


def kill_all(container: str, timeout: float = 5.0) -> bool:
    """Kill what is still in a container's control groups; False when something stays."""
    deadline = time.monotonic() + timeout
    while pids := cgroups.processes(container):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        time.sleep(0.005)
    return True


def _reap_rest(timeout: float = 2.0) -> None:
    """Reap every child that ends within ``timeout`` seconds, returning when none is left."""
    deadline = time.monotonic() + timeout
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
