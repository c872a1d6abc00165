"""From the kernel's bytes to values."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from bazaar.model.record import record
from bazaar.trace.layout import MapLayout
from bazaar.trace.types import Aggregate, Container, Int, Stored, Text, room

if TYPE_CHECKING:
    from bazaar.bpf.maps import Map

Resolve: TypeAlias = Callable[[int], str]  # a cgroup's id → a container's name


@record
class Histogram:
    """Counts of hist() or lhist(), by bucket; ``parameters`` are those of the function."""

    name: str
    parameters: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)


@record
class Statistics:
    """What avg() and stats() keep."""

    count: int
    total: int

    @property
    def average(self) -> int:
        """Rounded towards zero, as C divides."""
        if not self.count:
            return 0
        return abs(self.total) // self.count * (-1 if self.total < 0 else 1)


Value: TypeAlias = int | str | Histogram | Statistics


@record
class Entry:
    """One key (its parts; none for a map without keys) and its value."""

    key: tuple[int | str, ...]
    value: Value


@record
class MapValue:
    """What a map holds, sorted by value, smallest first.

    ``kind`` is int, string, or the aggregation's name. ``top`` and ``divisor`` are those of a
    print() with them; 0 and 1 otherwise.
    """

    name: str
    kind: str
    keyed: bool
    entries: tuple[Entry, ...]
    top: int = 0
    divisor: int = 1


def read(layout: MapLayout, source: Map, resolve: Resolve) -> MapValue:
    """All that a map holds now."""
    entries: list[Entry] = []
    if isinstance(layout.value, Aggregate):
        # Several control groups can bear one name (`host`, a restarted container): one entry.
        named: dict[tuple[int | str, ...], list[bytes]] = {}
        for key, parts in source.items_per_cpu():
            named.setdefault(decode_key(layout, key, resolve), []).extend(parts)
        for key, parts in named.items():
            entries.append(Entry(key, merge(layout.value, parts)))
        if not entries and not layout.keys and layout.value.name == "count":
            entries.append(Entry((), 0))  # bpftrace's keyless count() is always there, nothing else
    else:
        for key, raw in source.items():
            entries.append(
                Entry(decode_key(layout, key, resolve), decode(layout.value, raw, resolve))
            )
    kind = layout.value.name if isinstance(layout.value, Aggregate) else _kind(layout.value)
    return MapValue(layout.name, kind, bool(layout.keys), ordered(entries))


def ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries as they are shown: by value, smallest first, then by key."""
    return tuple(sorted(sorted(entries, key=_key_order), key=_order))


def _kind(kind: Stored) -> str:
    return "string" if isinstance(kind, Text | Container) else "int"


def _key_order(entry: Entry) -> tuple[tuple[bool, int | str], ...]:
    return tuple((isinstance(part, str), part) for part in entry.key)


def _order(entry: Entry) -> int:
    value = entry.value
    if isinstance(value, Histogram):
        return value.total
    if isinstance(value, Statistics):
        return value.average
    return value if isinstance(value, int) else 0  # strings stay in their keys' order


def decode(kind: Stored, raw: bytes, resolve: Resolve) -> int | str:
    """One value of a key, a map or an event."""
    if isinstance(kind, Text):
        return raw[: kind.room].split(b"\0", 1)[0].decode(errors="replace")
    number = int.from_bytes(raw[:8], "little")
    if isinstance(kind, Container):
        return resolve(number)
    return _signed(number) if isinstance(kind, Int) and kind.signed else number


def decode_all(kinds: Sequence[Stored], raw: bytes, resolve: Resolve) -> list[int | str]:
    """Values that lie behind one another."""
    found: list[int | str] = []
    offset = 0
    for kind in kinds:
        found.append(decode(kind, raw[offset : offset + room(kind)], resolve))
        offset += room(kind)
    return found


def decode_key(layout: MapLayout, raw: bytes, resolve: Resolve) -> tuple[int | str, ...]:
    """The parts of a key."""
    return tuple(decode_all(layout.keys, raw, resolve))


def merge(kind: Aggregate, parts: Sequence[bytes]) -> Value:
    """What all processors have counted, together."""
    match kind.name:
        case "hist" | "lhist":
            return Histogram(kind.name, kind.parameters, _add(parts))
        case "min" | "max":
            return _extreme(kind, parts)
        case _:
            first, *rest = _add(parts)
            total = _signed(first) if kind.signed else first
            if kind.name in ("avg", "stats"):
                return Statistics(rest[0], total)
            return total


def _extreme(kind: Aggregate, parts: Sequence[bytes]) -> int:
    pairs = [struct.unpack_from("<qQ" if kind.signed else "<QQ", part) for part in parts]
    there: list[int] = [value for value, is_set in pairs if is_set]
    if not there:
        return 0
    return min(there) if kind.name == "min" else max(there)


def _add(parts: Sequence[bytes]) -> tuple[int, ...]:
    """Word by word, wrapping at 64 bits."""
    form = f"<{len(parts[0]) // 8}Q"
    return tuple(
        sum(words) & (1 << 64) - 1
        for words in zip(*(struct.unpack(form, part) for part in parts), strict=True)
    )


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def bounds(histogram: Histogram, bucket: int) -> tuple[int | None, int | None]:
    """A bucket's least value and the first one above it; None where it has no such bound."""
    last = len(histogram.counts) - 1
    if histogram.name == "lhist":
        least, most, step = histogram.parameters
        if bucket == 0:
            return None, least
        if bucket == last:
            return most, None
        return least + (bucket - 1) * step, least + bucket * step
    if bucket == 0:
        return None, 0
    bits = histogram.parameters[0]
    position = bucket - 1
    if position < 1 << bits:
        return position, position + 1
    power, inside = (position >> bits) - 1, position & (1 << bits) - 1
    start = ((1 << bits) + inside) << power
    return start, start + (1 << power)
