"""HAProxy's process: validated, started, reloaded, found again."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import CommandError, NetworkError
from bazaar.host import commands, files, namespaces, processes
from bazaar.host.processes import Identity
from bazaar.site import daemons, runtime
from bazaar.site.naming import front_namespace

PROGRAM = "haproxy"
_START_LIMIT = 15.0  # seconds, for a start or a reload


def running(bazaar: str, folder: Path) -> Identity | None:
    """The master, provided that it lives in the front's present namespace."""
    found = daemons.find(PROGRAM, str(folder), folder / "haproxy.pid")
    return found if found and daemons.inside(found, front_namespace(bazaar)) else None


def answering(bazaar: str, folder: Path) -> Identity | None:
    """As `running`, for one that also answers: whoever started it may have died half-way.

    It gets as long as a start may take: on a busy machine it answers late, and whoever takes
    it for dead then starts another, which has to find all replicas healthy first.
    """
    deadline = time.monotonic() + _START_LIMIT
    while (found := running(bazaar, folder)) is not None:
        with contextlib.suppress(NetworkError):
            if runtime.workers(folder).current is not None:
                runtime.ask(folder, "admin.sock", "show info")
                return found
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return None


def stop(folder: Path) -> None:
    """End every HAProxy that has this folder."""
    daemons.stop(PROGRAM, str(folder))


def validate(bazaar: str, folder: Path, draft: Path) -> None:
    """Have HAProxy read a configuration; NetworkError tells what it says against it."""
    (folder / "empty").mkdir(exist_ok=True)
    with namespaces.enter(front_namespace(bazaar)):
        try:
            commands.run([PROGRAM, "-c", "-f", draft.name], folder=folder, package="haproxy")
        except CommandError as error:
            raise NetworkError(f"HAProxy refuses its configuration: {_reason(error)}") from error


def start(bazaar: str, folder: Path) -> None:
    """Start HAProxy from `haproxy.cfg`; what is left of an earlier one goes first."""
    daemons.stop(PROGRAM, str(folder))  # one of a namespace that is gone, or half-started
    for name in ("admin.sock", "master.sock"):
        (folder / name).unlink(missing_ok=True)
    (folder / "empty").mkdir(exist_ok=True)
    # -C marks the process as this folder's; daemons.find looks for it.
    arguments = [PROGRAM, "-W", "-D", "-C", str(folder), "-f", "haproxy.cfg"]
    arguments += ["-p", "haproxy.pid", "-S", "unix@master.sock,mode,600"]
    with namespaces.enter(front_namespace(bazaar)):
        try:
            commands.run(arguments, folder=folder, timeout=_START_LIMIT, package="haproxy")
        except CommandError as error:
            raise NetworkError(f"HAProxy does not start: {_reason(error)}") from error
    _await_worker(folder, lambda now: now.current is not None)


def reload(bazaar: str, folder: Path, master: Identity, old: str | None) -> None:
    """Have the master start a new worker from `haproxy.cfg`, which takes over the listeners."""
    before = runtime.workers(folder)
    if not processes.send(master, signal.SIGUSR2):
        start(bazaar, folder)
        return
    now = _await_worker(
        folder, lambda now: now.reloads != before.reloads and bool(now.failed or now.current)
    )
    if now.failed or now.current is None:
        if old is not None:
            files.write_atomic(folder / "haproxy.cfg", old)  # what the worker that stays has
        raise NetworkError(
            "HAProxy could not take over its new configuration; it serves the old one on",
            hint="a port may have been taken meanwhile: run the same again",
        )


def _await_worker(folder: Path, ready: Callable[[runtime.Workers], bool]) -> runtime.Workers:
    deadline = time.monotonic() + _START_LIMIT
    while True:
        with contextlib.suppress(NetworkError):  # its socket is not there yet
            now = runtime.workers(folder)
            if ready(now):
                runtime.ask(folder, "admin.sock", "show info")
                return now
        if time.monotonic() > deadline:
            raise NetworkError(f"HAProxy is not ready after {_START_LIMIT:g} s")
        time.sleep(0.01)


def _reason(error: CommandError) -> str:
    alerts = [line for line in error.output.splitlines() if line.startswith("[ALERT]")]
    return "; ".join(line.partition(" : ")[2] for line in alerts[:3]) or error.message
