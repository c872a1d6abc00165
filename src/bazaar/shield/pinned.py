"""The door's maps and program in bpffs: made once, found again by whoever comes later.

What is pinned outlives the process that attached it, so a supervisor that is killed leaves
the door working, and the next one takes it over with its counters and its block list.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bazaar.bpf import maps, pins, programs
from bazaar.bpf.maps import Map, MapSpec, MapType
from bazaar.bpf.programs import F_XDP_HAS_FRAGS, AttachType, Program, ProgramSpec, ProgramType
from bazaar.errors import KernelError, UsageError

_ABOUT = MapSpec("about", MapType.ARRAY, 4, 16_384, 1)
_ZERO = bytes(4)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")  # bpffs takes no dots


@dataclass
class About:
    """What the pins say of themselves, kept in a map beside them."""

    digest: str = ""  # of what the program and its maps were compiled of
    namespace: str | None = None
    links: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


def folder(name: str) -> str:
    """Where the shield called ``name`` has its pins."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' cannot name a shield", hint="letters, digits, '-' and '_'")
    return f"{pins.top()}/{name}/shield"


def names() -> list[str]:
    """The shields that are pinned on this machine."""
    top = pins.top()
    if not os.path.isdir(top):
        return []
    return sorted(
        entry for entry in os.listdir(top) if os.path.exists(f"{top}/{entry}/shield/about")
    )


class Pinned:
    """The maps and the program of one shield, open; `about` is read when it is opened."""

    def __init__(self, name: str, opened: dict[str, Map], program: Program, about: About) -> None:
        self.name = name
        self.folder = folder(name)
        self.maps = opened
        self.program = program
        self.about = about

    def refresh(self) -> None:
        """Read `about` again: another process may have changed it."""
        found = _read(self.maps["about"])
        if found is not None:
            self.about.links, self.about.settings = found.links, found.settings

    def remember(self) -> None:
        """Write `about` back."""
        text = json.dumps(vars(self.about)).encode()
        if len(text) > _ABOUT.value_size:
            raise UsageError(f"shield {self.name} has too many interfaces")
        self.maps["about"].update(_ZERO, text.ljust(_ABOUT.value_size, b"\0"))

    def close(self) -> None:
        """Give the descriptors back; what is pinned stays."""
        for item in self.maps.values():
            item.close()
        self.program.close()

    def remove(self) -> None:
        """Take all pins away, and the folder."""
        self.close()
        discard(self.name)


def discard(name: str) -> None:
    """Take away whatever is pinned for the shield ``name``, whole or half."""
    place = folder(name)
    if os.path.isdir(place):
        pins.remove_all(place)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(place))


def find(name: str) -> Pinned | None:
    """The shield that is pinned as ``name``; None where there is none, or a half-made one."""
    place = folder(name)
    if not os.path.exists(f"{place}/about"):
        return None
    with contextlib.ExitStack() as undo:
        try:
            opened = {
                item: undo.enter_context(maps.open_pinned(f"{place}/{item}"))
                for item in [*(spec.name for spec in _specs()), "about"]
            }
            program = undo.enter_context(programs.open_pinned(f"{place}/program"))
        except KernelError:
            return None
        about = _read(opened["about"])
        if about is None:
            return None
        undo.pop_all()
        return Pinned(name, opened, program, about)


def ensure(name: str) -> Pinned:
    """The shield ``name`` with the program of this version: adopted, renewed or made.

    Renewed means: the maps are kept with all they hold, the links get the new program.
    """
    digest = _digest()
    found = find(name)
    if found and found.about.digest == digest:
        return found
    instructions = _instructions()
    if found and all(found.maps[spec.name].spec == spec for spec in _specs()):
        program = _load(instructions, found.maps)
        pins.unpin(f"{found.folder}/program")
        program.pin(f"{found.folder}/program")
        found.program.close()
        found.program, found.about.digest = program, digest
        return found
    if found:
        found.close()
    discard(name)
    return _make(name, digest, instructions)


def _make(name: str, digest: str, instructions: tuple[Any, ...]) -> Pinned:
    place = folder(name)
    with contextlib.ExitStack() as undo:
        undo.callback(discard, name)
        made: dict[str, Map] = {}
        for spec in [*_specs(), _ABOUT]:
            made[spec.name] = undo.enter_context(maps.create(spec))
        program = undo.enter_context(_load(instructions, made))
        for spec in _specs():
            made[spec.name].pin(f"{place}/{spec.name}")
        program.pin(f"{place}/program")
        pinned = Pinned(name, made, program, About(digest))
        pinned.remember()
        # Last: with it the shield is whole.
        made["about"].pin(f"{place}/about")
        undo.pop_all()
        return pinned


def _specs() -> list[MapSpec]:
    from bazaar.shield import door

    return list(door.door.maps)


def _digest() -> str:
    """Of the sources of the door and its compiler: reading them takes a thirtieth of compiling,
    which a supervisor that takes over on a busy machine has no time for."""
    package = Path(__file__).parents[1]
    sources = sorted(path for part in ("bpf", "shield") for path in (package / part).rglob("*.py"))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _instructions() -> tuple[Any, ...]:
    from bazaar.shield import door

    return tuple(door.door.instructions)


def _load(instructions: tuple[Any, ...], opened: dict[str, Map]) -> Program:
    spec = ProgramSpec(
        "bazaar_door", ProgramType.XDP, instructions, "GPL", AttachType.XDP, flags=F_XDP_HAS_FRAGS
    )
    return programs.load(spec, opened)


def _read(about: Map) -> About | None:
    raw = about.lookup(_ZERO) or b""
    try:
        values: dict[str, Any] = json.loads(raw.split(b"\0", 1)[0])
        return About(**values)
    except (ValueError, TypeError):
        return None
