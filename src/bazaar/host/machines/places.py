"""Where local machines lie, what they are called, and what is known of one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bazaar.host import files, paths
from bazaar.model.machine import Machine
from bazaar.model.record import record

FIRST = 11  # the last byte of m1's address
MOST = 240  # machines of one state folder
_NAME = re.compile(r"m([1-9]\d{0,2})")


@record
class LocalMachine:
    """A machine made here, as it is now."""

    machine: Machine
    status: str  # running | stopped | unfinished: what was making it did not get to its end
    ready_seconds: float | None = None  # from nothing to the first SSH login
    created_at: float | None = None


def folder() -> Path:
    """Everything of the local machines; the keys to them too, so for its owner alone."""
    return paths.state() / "machines"


def key() -> Path:
    """The private key that root logs in by."""
    return folder() / "key"


def known_hosts() -> Path:
    """The machines' host keys, as ssh(1) reads them."""
    return folder() / "known_hosts"


def tag() -> str:
    """What tells the machines of this state folder from those of others."""
    return hashlib.sha256(str(folder().resolve()).encode()).hexdigest()[:6]


def identity(name: str) -> str:
    """One name for a machine's namespace, control groups and nspawn, unique on this host."""
    return f"bzm-{tag()}-{name}"


def number(name: str) -> int:
    """The N of mN; 0 when the name is none of a machine."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and int(found[1]) <= MOST else 0


def names() -> list[str]:
    """The machines that have a folder, finished or not, in their order."""
    try:
        found = [entry.name for entry in folder().iterdir() if number(entry.name)]
    except FileNotFoundError:
        return []
    return sorted(found, key=number)


def store(name: str, address: str, ready: float, created: float) -> None:
    """Note that a machine is finished: the last step of making it."""
    about = {"address": address, "ready_seconds": round(ready, 3), "created_at": created}
    files.write_json(folder() / name / "machine.json", about)


def stored(name: str) -> tuple[str, float | None, float | None] | None:
    """A finished machine's address, time to be ready, and time of making; None for others."""
    about = files.read_json(folder() / name / "machine.json")
    if about is None:
        return None
    return str(about["address"]), about["ready_seconds"], about["created_at"]


def note(name: str, owner: str, binds: Mapping[Path, str]) -> None:
    """Note whom a machine is made for, and what is shown to it whenever it starts."""
    shown = {str(source): target for source, target in binds.items()}
    files.write_json(folder() / name / "about.json", {"owner": owner, "binds": shown})


def owner(name: str) -> str:
    """Whom a machine was made for; "": nobody in particular."""
    return str(_about(name).get("owner", ""))


def binds(name: str) -> dict[Path, str]:
    """The folders of this machine that are shown to one, and where."""
    shown: dict[str, str] = _about(name).get("binds", {})
    return {Path(source): target for source, target in shown.items()}


def _about(name: str) -> dict[str, Any]:
    return files.read_json(folder() / name / "about.json") or {}


def reached_at(name: str, address: str) -> Machine:
    """How to reach a machine."""
    return Machine(name, address, key=str(key()), known_hosts=str(known_hosts()))


def write_known_hosts(addresses: dict[str, str]) -> None:
    """Write the host keys of the machines, by name, whose addresses are given."""
    lines: list[str] = []
    for name, address in addresses.items():
        try:
            public = (folder() / name / "host_key.pub").read_text().split()
        except FileNotFoundError:
            continue
        lines.append(f"{address} {' '.join(public[:2])}\n")
    files.write_atomic(known_hosts(), "".join(lines))
