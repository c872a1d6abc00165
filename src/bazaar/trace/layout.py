"""How keys, values and events lie in memory: what lowering writes and reading understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from bazaar.model.record import record
from bazaar.trace.formats import Specifier
from bazaar.trace.types import Aggregate, Stored, room

if TYPE_CHECKING:
    from bazaar.bpf.maps import MapSpec
    from bazaar.trace.check import MapInfo

KEYS = 4096  # entries of a map, as bpftrace has it
# Bytes of a map's values up to which the kernel allocates all beforehand. One that allocates as
# keys come loses those for which a busy kernel has no memory at hand.
_BEFOREHAND = 32 << 20


@record
class MapLayout:
    """One map of the program. Each part of a key has whole words; no key is one zero word."""

    name: str
    index: int  # among the program's maps
    keys: tuple[Stored, ...]
    value: Stored | Aggregate

    @property
    def key_size(self) -> int:
        return sum(map(room, self.keys)) or 8

    @property
    def value_size(self) -> int:
        if not isinstance(self.value, Aggregate):
            return room(self.value)
        match self.value.name:
            case "hist" | "lhist":
                return 8 * buckets(self.value)
            case "count" | "sum":
                return 8
            case _:
                return 16  # min, max: value, whether set; avg, stats: total, count

    @property
    def per_cpu(self) -> bool:
        return isinstance(self.value, Aggregate)

    def spec(self) -> MapSpec:
        """The kernel map's blueprint."""
        from bazaar.bpf.maps import MapFlag, MapSpec, MapType, possible_cpus

        kind = MapType.PERCPU_HASH if self.per_cpu else MapType.HASH
        entries = KEYS if self.keys else 1
        size = entries * self.value_size * (possible_cpus() if self.per_cpu else 1)
        flags = 0 if size <= _BEFOREHAND else MapFlag.NO_PREALLOC
        name = self.name.replace("@", "at_")
        return MapSpec(name, kind, self.key_size, self.value_size, entries, flags)


def buckets(kind: Aggregate) -> int:
    """How many counters a histogram has."""
    if kind.name == "hist":
        bits = kind.parameters[0]
        # Negative; one each below 2^bits; 2^bits for each power from there to 2^62.
        return 1 + (1 << bits) + ((63 - bits) << bits)
    least, most, step = kind.parameters
    return (most - least) // step + 2


def layouts(maps: dict[str, MapInfo]) -> dict[str, MapLayout]:
    """Every map's layout, by name; the checker made sure that types are known."""
    return {
        name: MapLayout(
            name,
            index,
            cast("tuple[Stored, ...]", info.keys or ()),
            cast("Stored | Aggregate", info.value),
        )
        for index, (name, info) in enumerate(sorted(maps.items()))
    }


# What user space does when an event arrives; an event is the action's number, then its values.


@record
class Printf:
    """printf(): the format's pieces, and the type of each value."""

    pieces: tuple[str | Specifier, ...]
    kinds: tuple[Stored, ...]


@record
class PrintValue:
    """print() of an expression."""

    kind: Stored


@record
class PrintEntry:
    """print(@m[k]); the event holds the key."""

    map: str


@record
class PrintMap:
    """print(@m, top, div)."""

    map: str
    top: int = 0
    divisor: int = 1


@record
class Clear:
    """clear(@m), or zero(@m)."""

    map: str
    zero: bool


@record
class Time:
    """time(format)."""

    format: str


@record
class Exit:
    """exit(code); the event holds the code."""


Action: TypeAlias = Printf | PrintValue | PrintEntry | PrintMap | Clear | Time | Exit
