"""Containers by id: start, look, wait, signal, stop, remove, execute, logs.

Everything that is known of a container lies in its directory below the state folder, so any
process may take over from any other:

    container.json  what it is: id, name, engine, labels (readable names, no secrets)
    config.json     the OCI bundle, secrets included: 0600
    launch.json     how it is started and cleared up
    process.json    the engine's process and the shim, with their start times
    exit.json       its exit code, once it ended
    log, log.1      what it wrote
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bazaar.errors import BazaarError, EngineError, StateError
from bazaar.host import cgroups, paths, processes
from bazaar.model.container import ContainerSpec, ContainerState
from bazaar.run import bundle, launch, records, rootfs
from bazaar.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bazaar.run.logs import LogLine

_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,126}"
# -S: no site packages, half the memory and a third of the start.
_SHIM = (
    "import sys; sys.path.insert(0, sys.argv[3]); "
    "from bazaar.run.shim import main; main(sys.argv[1], int(sys.argv[2]))"
)


def folder(container: str) -> Path:
    """A container's directory. Raises EngineError for what cannot be an id."""
    if not re.fullmatch(_ID, container):
        raise EngineError(
            f"'{container.removeprefix('run.')}' cannot name a container",
            hint="letters, digits, '.', '_' and '-', up to 127 of them",
        )
    return paths.containers() / container


def prepare(spec: ContainerSpec, *, owner: int | None = None, gated: bool = False) -> launch.Launch:
    """Make everything a container needs but its processes: directory, root, bundle, cgroups.

    ``owner`` is the process that runs it in the foreground; ``gated``, its start waits for a
    `gate.Gate`. Raises EngineError; nothing is left then.
    """
    from bazaar.run import preparation

    return preparation.prepare(spec, owner, gated=gated)


def check_free(container: str, name: str) -> None:
    """Raise EngineError when another container has that id; what is left of a dead one goes."""
    from bazaar.run import preparation

    preparation.check_free(container, name)


def shim_command(asked: launch.Launch, report: int) -> list[str]:
    """The shim of a prepared container; what became of its start goes to ``report``."""
    source = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-I", "-S", "-c", _SHIM, asked.folder, str(report), source]


def start(spec: ContainerSpec) -> ContainerState:
    """Start a container that outlives this process; returns when its process is started.

    Raises EngineError, with docker's exit codes, when it could not be; nothing is left then.
    """
    bundle.check_namespace(spec)
    asked = prepare(spec)
    import subprocess

    ready, report = os.pipe2(os.O_CLOEXEC)
    try:
        with (Path(asked.folder) / "shim.log").open("wb") as log:
            process = subprocess.Popen(
                shim_command(asked, report),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(report,),
                env={"PATH": os.environ.get("PATH", "")},
            )
        os.close(report)
        process.wait()
        answer = b""
        while chunk := os.read(ready, 4096):
            answer += chunk
        result: dict[str, Any] = json.loads(answer) if answer else {}
    except BaseException:
        discard(spec.id)
        raise
    finally:
        os.close(ready)
    if "pid" not in result:
        problem = EngineError(str(result.get("error") or _last_line(asked.path("shim.log"))))
        problem.exit_code = int(result.get("code", 125))
        discard(spec.id)
        raise problem
    return ContainerState(
        spec.id,
        spec.name,
        spec.engine,
        "running",
        int(result["pid"]),
        None,
        float(result["started_at"]),
        spec.labels,
    )


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return (
            path.read_text(errors="replace").strip().splitlines()
            or ["its shim ended without a word"]
        )[-1]
    return "its shim ended without a word"


def state(container: str) -> ContainerState | None:
    """What a container is doing now, by what runs, not by what was written; None: no such one."""
    place = folder(container)
    about = launch.load(place, "container.json")
    if about is None:
        return None
    running, status, code = records.process(place), "stopped", None
    started = 0.0
    if record := launch.load(place, "process.json"):
        started = float(record.get("started_at") or 0)
    if running is not None:
        status = "running"
    elif ended := launch.load(place, "exit.json"):
        code = int(ended.get("code", 137))
    elif not started and records.same_boot(about) and records.creating(place, about):
        status = "created"
    elif (running := records.stray(place)) is not None:
        status = "running"
    return ContainerState(
        id=container,
        name=str(about.get("name", container)),
        engine=str(about.get("engine", "")),
        status=status,
        pid=running.pid if running else 0,
        exit_code=code,
        started_at=started,
        labels=tuple(sorted((str(k), str(v)) for k, v in dict(about.get("labels") or {}).items())),
    )


def listing() -> list[ContainerState]:
    """Every container on this machine, by id."""
    try:
        names = sorted(
            entry.name for entry in paths.containers().iterdir() if re.fullmatch(_ID, entry.name)
        )
    except FileNotFoundError:
        return []
    return [found for found in map(state, names) if found is not None]


def about(container: str) -> dict[str, Any]:
    """container.json as far as it can be read; empty when it is gone."""
    return launch.load(folder(container), "container.json") or {}


def detail(container: str) -> dict[str, Any]:
    """container.json: what was asked for, without secrets. Raises EngineError: no such one."""
    about = launch.load(folder(container), "container.json")
    if about is None:
        raise EngineError(f"there is no container {container}", hint="`bazaar ps --all` lists them")
    return about


def exit_fd(container: str) -> int | None:
    """A descriptor that becomes readable once the container has ended; None: it has already.

    It is the shim's pidfd, whose end comes after the exit code was recorded; without a shim
    the container's own. The caller closes it.
    """
    place = folder(container)
    for identity in (records.shim(place), records.process(place)):
        if identity is not None and (descriptor := processes.pidfd(identity)) is not None:
            return descriptor
    return None


def tended(container: str) -> bool:
    """Whether the shim of a detached container runs: without it nobody reads what it writes.

    Such a container is ended by its next line of output, and its log and exit code are lost.
    """
    return records.shim(folder(container)) is not None


def wait(container: str, timeout: float | None = None) -> int | None:
    """Wait for a container's end; its exit code, None when ``timeout`` seconds passed first.

    Where nobody saw how it ended (its shim was killed too) that is 137, as for SIGKILL.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    place = folder(container)
    for identity in (records.shim(place), records.process(place)):
        if identity is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not processes.wait(identity, left):
                return None
    found = state(container)
    if found is None:
        raise EngineError(f"there is no container {container}", hint="`bazaar ps --all` lists them")
    return 137 if found.exit_code is None else found.exit_code


def send_signal(container: str, number: int) -> bool:
    """Send a signal to the container's first process; False when it does not run.

    gVisor passes a signal of its sandbox process on to it; SIGKILL ends the sandbox itself.
    """
    identity = records.process(folder(container))
    return identity is not None and processes.send(identity, number)


def stop(container: str, timeout: float = 10.0) -> int | None:
    """Ask a container to end with its image's stop signal; after ``timeout`` seconds kill it.

    Returns its exit code, None when it did not run at all. Raises EngineError when it stays.
    """
    place = folder(container)
    identity = records.process(place) or records.stray(place)
    asked, shim = launch.read(place), records.shim(place)
    if identity is not None:
        number = asked.stop_signal if asked else signal.SIGTERM
        if not processes.terminate(identity, timeout, number):
            raise EngineError(
                f"{container} does not end, even by SIGKILL",
                hint="a process of it hangs in the kernel",
            )
    if shim is not None:
        processes.wait(shim, 10.0)
    elif asked is not None:
        launch.settle(asked, parent=False)
    found = state(container)
    return found.exit_code if found else None


def remove(container: str, *, force: bool = False, timeout: float = 10.0) -> None:
    """Take a container's directory away, and with ``force`` the container first.

    Raises EngineError when it runs and ``force`` is not given.
    """
    found = state(container)
    if found is not None and found.status == "running":
        if not force:
            raise EngineError(
                f"{found.name} is running",
                hint=f"bazaar stop {found.name}, or bazaar rm -f {found.name}",
            )
        stop(container, timeout)
    place = folder(container)
    if (shim := records.shim(place)) is not None and not processes.wait(shim, 10.0):
        processes.send(shim, signal.SIGKILL)
        processes.wait(shim, 5.0)
    discard(container)


def discard(container: str, *, settled: bool = False) -> None:
    """Clear away whatever there is of a container, however far it came.

    ``settled``: the engine knows nothing of it any more, only files are left.
    """
    place = folder(container)
    asked = None if settled else launch.read(place)
    if asked is not None and (place / "engine.log").exists():
        launch.settle(asked, parent=False)
    launch.kill_all(container)
    cgroups.remove(container)
    if place.exists():
        rootfs.unmount(place)
        import shutil

        shutil.rmtree(place, ignore_errors=True)
    if place.exists():
        raise StateError(f"{place} cannot be removed", hint="see what holds it: findmnt, fuser -vm")


def logs(
    container: str, *, follow: bool = False, since: float | None = None, tail: int | None = None
) -> Iterator[LogLine]:
    """What a container wrote, as `run.logs.LogLine`; with ``follow`` until it ends."""
    from bazaar.run import logs as files

    detail(container)
    ended = exit_fd(container) if follow else None
    try:
        yield from files.read(folder(container), since=since, tail=tail, ended=ended)
    finally:
        if ended is not None:
            os.close(ended)


def execute(
    container: str,
    command: Sequence[str],
    *,
    tty: bool = False,
    interactive: bool = False,
    environment: Sequence[tuple[str, str]] = (),
    user: str | None = None,
    working_directory: str | None = None,
) -> int:
    """Run ``command`` inside a running container with our streams; its exit code.

    ``interactive`` passes our stdin on. Raises EngineError when it does not run, or, with exit
    code 126 or 127, when there is no such program in it.
    """
    from bazaar.run import interactive as streams
    from bazaar.run import programs

    missing = None
    if records.process(place := folder(container)) is not None:  # else it is told what is wrong
        missing = programs.missing(place, command[0], dict(environment), working_directory)
    with programs.instead(missing) if missing is not None else contextlib.nullcontext():
        return streams.execute(
            container,
            command,
            terminal=tty,
            stdin=interactive,
            environment=environment,
            user=user,
            working_directory=working_directory,
        )


def _abandoned(place: Path, about: dict[str, Any]) -> bool:
    """Whether a container ended, was to be removed then, and nobody is left to do it."""
    if about.get("remove"):
        found = state(place.name)
        return found is not None and found.status == "stopped" and records.shim(place) is None
    if not about.get("owner"):
        return False
    owner = processes.Identity(*map(int, about["owner"]))
    return (
        not (records.same_boot(about) and processes.alive(owner)) and records.process(place) is None
    )


def sweep(also: Callable[[str], None] | None = None) -> list[str]:
    """Remove containers that ended and whose runner or shim was killed before it could; their ids.

    Those that are to stay when they end are left alone.

    ``also`` is called with each: what else goes with a container, its network.
    """
    gone: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        for entry in list(paths.containers().iterdir()):
            about = launch.load(entry, "container.json")
            if about is not None and _abandoned(entry, about):
                with contextlib.suppress(BazaarError):
                    discard(entry.name)
                    if also is not None:
                        also(entry.name)
                    gone.append(entry.name)
    return gone
