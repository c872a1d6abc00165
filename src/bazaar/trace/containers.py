"""Which control groups belong to the containers that a program is restricted to."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bazaar.errors import KernelError, UsageError
from bazaar.trace.program import MOST_CONTAINERS

if TYPE_CHECKING:
    from bazaar.bpf.maps import Map
    from bazaar.host.identity import Names

_REFRESH = 1.0  # seconds between looks for new ones
_ENGINE = re.compile(r" \((\w+)\)$")
_NO_CONTAINERS = ("host", "cgroup (gone)")


def matches(shown: str, asked: str) -> bool:
    """Whether a container that is shown so is meant: by its whole name, or as a replica's service.

    A replica is SERVICE/SITE/N; SERVICE and SERVICE/SITE mean all of theirs, as for `logs`.
    """
    name = _ENGINE.sub("", shown)
    return shown not in _NO_CONTAINERS and (name == asked or name.startswith(f"{asked}/"))


def running(known: Mapping[int, str], asked: Sequence[str]) -> list[str]:
    """The containers asked for, as they are shown. Raises UsageError for a name nobody has."""
    shown = sorted(set(known.values()) - set(_NO_CONTAINERS))
    found: list[str] = []
    for name in asked:
        its = [one for one in shown if matches(one, name)]
        if not its:
            raise _unknown(name, [_ENGINE.sub("", one) for one in shown])
        found += [one for one in its if one not in found]
    return found


def _unknown(name: str, there: list[str]) -> UsageError:
    import difflib

    services = {one.partition("/")[0] for one in there}
    near = difflib.get_close_matches(name, sorted(services | set(there)), 3)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif there:
        hint = f"there are: {', '.join(there[:20])}" + (" …" if len(there) > 20 else "")
    else:
        hint = "none runs that this machine's cgroup v2 hierarchy tells apart"
    return UsageError(f"no container '{name}' runs here", hint=hint)


def hidden(shown: Sequence[str]) -> dict[str, list[str]]:
    """The containers that have a kernel of their own, by the engine that is seen instead."""
    found: dict[str, list[str]] = {}
    for one in shown:
        if engine := _ENGINE.search(one):
            found.setdefault(engine[1], []).append(_ENGINE.sub("", one))
    return found


class Admission:
    """Keeps the kernel's map of control groups: a container that is started again is let in."""

    def __init__(self, asked: Sequence[str], groups: Map) -> None:
        self.asked = asked
        self.groups = groups
        self.seen: set[int] = set()
        self.looked = 0.0

    def refresh(self, names: Names) -> None:
        """Look for new control groups, at most once a second."""
        if time.monotonic() - self.looked < _REFRESH:
            return
        names.refresh()
        self.looked = time.monotonic()
        for group, shown in names.known.items():
            if group not in self.seen:
                self.seen.add(group)
                if any(matches(shown, one) for one in self.asked):
                    self._admit(group)

    def _admit(self, group: int) -> None:
        try:
            self.groups.update(struct.pack("<Q", group), b"\1")
        except KernelError as error:
            raise KernelError(
                f"more than {MOST_CONTAINERS} control groups belong to {', '.join(self.asked)}",
                errno=error.errno,
                hint="name fewer containers",
            ) from error
