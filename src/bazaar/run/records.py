"""What is written down of a container's processes, and whether those very ones still run."""

from __future__ import annotations

import time
from pathlib import Path

from bazaar.host import cgroups, processes
from bazaar.run import launch
from bazaar.typed import Any


def process(place: Path) -> processes.Identity | None:
    """The container's process, when that very one still runs."""
    return _recorded(place, "pid", "start")


def shim(place: Path) -> processes.Identity | None:
    """The process beside a detached container, when that very one still runs."""
    return _recorded(place, "shim", "shim_start")


def stray(place: Path) -> processes.Identity | None:
    """A process of a container nobody could record: whoever started it was killed just then."""
    record = launch.load(place, "process.json") or {}
    if isinstance(record.get("pid"), int) and isinstance(record.get("start"), int):
        return None  # what is still there is on its way out
    found = (processes.identify(pid) for pid in cgroups.processes(place.name))
    return next((identity for identity in found if identity is not None), _started(place))


def _started(place: Path) -> processes.Identity | None:
    """The process whose pid the engine wrote down, where no control group tells: that very one."""
    try:
        written = (place / "pid").stat().st_mtime
        identity = processes.identify(int((place / "pid").read_text()))
    except (OSError, ValueError):
        return None
    if identity is None or processes.started_at(identity) > written + 1:
        return None  # another one has that pid now
    return identity


def same_boot(record: dict[str, Any]) -> bool:
    """Whether a record is of this boot: pids and start times mean nothing in another."""
    return record.get("boot") == launch.boot_id()


def creating(place: Path, about: dict[str, Any]) -> bool:
    """Whether somebody is still at work on a container that has no process yet."""
    if owner := about.get("owner"):
        return processes.alive(processes.Identity(int(owner[0]), int(owner[1])))
    return (
        not (place / "exit.json").exists() and time.time() - float(about.get("created_at", 0)) < 30
    )


def _recorded(place: Path, pid: str, start: str) -> processes.Identity | None:
    record = launch.load(place, "process.json")
    if record is None or not same_boot(record):
        return None
    try:
        identity = processes.Identity(int(record[pid]), int(record[start]))
    except (KeyError, TypeError, ValueError):
        return None  # cut short; the control group still tells what runs
    return identity if processes.alive(identity) else None
