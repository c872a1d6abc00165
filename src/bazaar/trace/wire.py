"""What a program gathered on several machines: carried as JSON, and put together as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bazaar.errors import TraceError
from bazaar.model.record import replace
from bazaar.trace.read import Entry, Histogram, MapValue, Statistics, Value, ordered

_APART = ("int", "string")  # kinds of which two machines' values are no one value


def to_plain(item: MapValue) -> dict[str, Any]:
    """A map as JSON values."""
    return {
        "name": item.name,
        "kind": item.kind,
        "keyed": item.keyed,
        "top": item.top,
        "divisor": item.divisor,
        "entries": [[list(one.key), _plain(one.value)] for one in item.entries],
    }


def _plain(value: Value) -> Any:
    if isinstance(value, Histogram):
        return {"name": value.name, "parameters": value.parameters, "counts": value.counts}
    if isinstance(value, Statistics):
        return {"count": value.count, "total": value.total}
    return value


def from_plain(value: Any) -> MapValue:
    """Read back what `to_plain` wrote. Raises TraceError where it is something else."""
    try:
        entries = tuple(Entry(tuple(key), _value(one)) for key, one in value["entries"])
        plain = {name: value[name] for name in ("name", "kind", "keyed", "top", "divisor")}
        return MapValue(entries=entries, **plain)
    except (TypeError, KeyError, ValueError) as error:
        raise TraceError(f"a machine told of no map: {error!r}") from None


def _value(value: Any) -> Value:
    match value:
        case {"name": str(name), "parameters": _, "counts": _}:
            return Histogram(
                name, *(tuple(map(int, value[key])) for key in ("parameters", "counts"))
            )
        case {"count": int(count), "total": int(total)}:
            return Statistics(count, total)
        case int() | str():
            return value
        case _:
            raise ValueError("no value of a map")


def merged(gathered: Sequence[tuple[str, Sequence[MapValue]]]) -> list[MapValue]:
    """The maps of several machines, by these' names, as if one had gathered all.

    Plain values stay apart, under a further key in front: the machine's name.
    """
    found: dict[str, MapValue] = {}
    for machine, maps in gathered:
        for item in maps:
            if item.kind in _APART and len(gathered) > 1:
                entries = tuple(replace(one, key=(machine, *one.key)) for one in item.entries)
                item = replace(item, keyed=True, entries=entries)
            there = found.get(item.name)
            found[item.name] = item if there is None else _joined(there, item)
    return [found[name] for name in sorted(found)]


def _joined(one: MapValue, other: MapValue) -> MapValue:
    if (one.kind, one.keyed) != (other.kind, other.keyed):
        raise TraceError(f"{one.name}: machines told of maps of different kinds")
    values = {entry.key: entry.value for entry in one.entries}
    for entry in other.entries:
        there = values.get(entry.key)
        values[entry.key] = entry.value if there is None else _sum(one.kind, there, entry.value)
    return replace(one, entries=ordered(Entry(key, value) for key, value in values.items()))


def _sum(kind: str, one: Value, other: Value) -> Value:
    if isinstance(one, Histogram) and isinstance(other, Histogram):
        counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
        return replace(one, counts=counts)
    if isinstance(one, Statistics) and isinstance(other, Statistics):
        return Statistics(one.count + other.count, one.total + other.total)
    if isinstance(one, int) and isinstance(other, int):
        return {"min": min, "max": max}.get(kind, int.__add__)(one, other)
    return other
