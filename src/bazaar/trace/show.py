"""Shows values exactly as bpftrace prints them, as text and as its JSON lines."""

from __future__ import annotations

import json as encoder
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bazaar.trace.read import Entry, Histogram, MapValue, Statistics, Value, bounds

if TYPE_CHECKING:
    from bazaar.trace.session import Output

_BAR = 52  # characters of a histogram's longest bar
_UNITS = ("", "K", "M", "G", "T", "P", "E")


def text(maps: Iterable[MapValue]) -> str:
    """Maps one after another, as bpftrace prints them when it ends."""
    return "".join(map(one_map, maps))


def json(maps: Iterable[MapValue]) -> str:
    """Maps as JSON objects, one a line, as bpftrace -f json prints them; no empty ones."""
    return "".join(_line(*_map_object(item)) for item in maps if item.entries)


def one_map(item: MapValue) -> str:
    """One map; an empty line stands for an empty one. One more stands behind avg() and stats()."""
    entries = item.entries[-item.top :] if item.top else item.entries
    lines = "".join(_entry(item, entry) for entry in entries) or "\n"
    return lines + ("\n" if item.kind in ("avg", "stats") else "")


def entry(item: MapValue) -> str:
    """One entry of a map, for print(@m[k]); an empty line where there is none."""
    return "".join(_entry(item, one) for one in item.entries) or "\n"


def _entry(item: MapValue, one: Entry) -> str:
    name = f"{item.name}[{', '.join(map(str, one.key))}]" if item.keyed else item.name
    if isinstance(one.value, Histogram):
        return f"{name}:\n{histogram(one.value, item.divisor)}\n"
    return f"{name}: {_plain(item, one.value)}\n"


def _plain(item: MapValue, value: Value) -> str:
    if isinstance(value, Statistics):
        average = _divide(value.average, item.divisor)
        if item.kind == "avg":
            return str(average)
        return f"count {value.count}, average {average}, total {_divide(value.total, item.divisor)}"
    return str(_divide(value, item.divisor) if isinstance(value, int) else value)


def _divide(value: int, divisor: int) -> int:
    return abs(value) // divisor * (-1 if value < 0 else 1)


def histogram(value: Histogram, divisor: int = 1) -> str:
    """The buckets from the first to the last that counted anything, with their bars."""
    first, last = _span(value)
    most = max(value.counts, default=0)
    lines = [
        f"{_label(value, bucket):<16}{value.counts[bucket] // divisor:>8} |"
        f"{'@' * (_BAR * value.counts[bucket] // most):<{_BAR}}|\n"
        for bucket in range(first, last + 1)
    ]
    return "".join(lines)


def _span(value: Histogram) -> tuple[int, int]:
    filled = [bucket for bucket, count in enumerate(value.counts) if count]
    return (filled[0], filled[-1]) if filled else (0, -1)


def _label(value: Histogram, bucket: int) -> str:
    least, end = bounds(value, bucket)
    if value.name == "lhist":
        low, high = (None if bound is None else _exact(bound) for bound in (least, end))
    else:
        bits = value.parameters[0]
        low, high = (None if bound is None else _power(bound, bits) for bound in (least, end))
        if least is not None and end == least + 1:
            return f"[{least}]"
    if low is None:
        return f"(..., {high})"
    return f"[{low}, {high or '...'})"


def _power(value: int, bits: int) -> str:
    """A bound of hist(): shortened where all buckets of its power of two stay whole numbers."""
    unit = max(0, value.bit_length() - 1 - bits) // 10
    return f"{value >> 10 * unit}{_UNITS[unit]}"


def _exact(value: int) -> str:
    """A bound of lhist(): shortened as long as nothing is left over."""
    unit = 0
    while value and value % 1024 == 0 and unit < len(_UNITS) - 1:
        value //= 1024
        unit += 1
    return f"{value}{_UNITS[unit]}"


# JSON


def _line(kind: str, data: Any) -> str:
    return encoder.dumps({"type": kind, "data": data}, ensure_ascii=False) + "\n"


def _map_object(item: MapValue) -> tuple[str, dict[str, Any]]:
    kind = {"hist": "hist", "lhist": "hist", "avg": "stats", "stats": "stats"}.get(item.kind, "map")
    entries = item.entries[-item.top :] if item.top else item.entries
    if not item.keyed:
        return kind, {item.name: _json_value(item, entries[0].value) if entries else None}
    return kind, {
        item.name: {",".join(map(str, one.key)): _json_value(item, one.value) for one in entries}
    }


def _json_value(item: MapValue, value: Value) -> Any:
    if isinstance(value, Histogram):
        return _json_buckets(value, item.divisor)
    if isinstance(value, Statistics):
        average = _divide(value.average, item.divisor)
        if item.kind == "avg":
            return average
        return {
            "count": value.count,
            "average": average,
            "total": _divide(value.total, item.divisor),
        }
    return _divide(value, item.divisor) if isinstance(value, int) else value


def _json_buckets(value: Histogram, divisor: int) -> list[dict[str, int]]:
    first, last = _span(value)
    found: list[dict[str, int]] = []
    for bucket in range(first, last + 1):
        least, end = bounds(value, bucket)
        one = {} if least is None else {"min": least}
        if end is not None:
            one["max"] = end - 1
        found.append({**one, "count": value.counts[bucket] // divisor})
    return found


def outputs_text(outputs: Sequence[Output]) -> str:
    """What arrived, as text."""
    parts: list[str] = []
    for output in outputs:
        data = output.data
        if isinstance(data, MapValue):
            parts.append(entry(data) if output.kind == "entry" else one_map(data))
        elif output.kind == "value":
            parts.append(f"{data}\n")
        else:
            parts.append(str(data))
    return "".join(parts)


def outputs_json(outputs: Sequence[Output]) -> str:
    """What arrived, as JSON lines."""
    parts: list[str] = []
    for output in outputs:
        data = output.data
        if isinstance(data, MapValue):
            parts.append(json([data]))
        else:
            parts.append(_line(output.kind, data))
    return "".join(parts)
