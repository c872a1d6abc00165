"""Maps of several machines put together as if one had gathered them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import TraceError
from bazaar.trace import show, wire
from bazaar.trace.read import Entry, Histogram, MapValue, Statistics

COUNTS = st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3).map(tuple)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "count": st.integers(0, 1 << 60),
    "min": st.integers(),
    "max": st.integers(),
    "sum": st.integers(),
    "int": st.integers(),
    "string": st.text(),
    "avg": st.builds(Statistics, st.integers(1, 1 << 30), st.integers()),
    "hist": st.builds(Histogram, st.just("hist"), st.just((0,)), COUNTS),
}


@st.composite
def maps(draw: st.DrawFn) -> MapValue:
    kind = draw(st.sampled_from(sorted(VALUES)))
    keys = st.tuples(st.text(max_size=3), st.integers())
    held = draw(st.dictionaries(keys, VALUES[kind], max_size=4))
    return MapValue(f"@{kind}", kind, True, tuple(Entry(key, one) for key, one in held.items()))


@given(maps())
def test_it_comes_over_as_it_was(one: MapValue):
    assert wire.from_plain(json.loads(json.dumps(wire.to_plain(one)))) == one


def of(kind: str, *entries: tuple[tuple[Any, ...], Any]) -> MapValue:
    return MapValue("@", kind, True, tuple(Entry(key, value) for key, value in entries))


@pytest.mark.parametrize(
    ("kind", "one", "other", "both"),
    [
        ("count", 2, 3, 5),
        ("sum", -2, 3, 1),
        ("min", 2, 3, 2),
        ("max", 2, 3, 3),
        ("stats", Statistics(1, 10), Statistics(3, 2), Statistics(4, 12)),
        (
            "hist",
            Histogram("hist", (0,), (1, 2)),
            Histogram("hist", (0,), (3, 4)),
            Histogram("hist", (0,), (4, 6)),
        ),
    ],
)
def test_what_two_machines_gathered_is_one_value(kind: str, one: Any, other: Any, both: Any):
    gathered = [("m1", [of(kind, (("a",), one))]), ("m2", [of(kind, (("a",), other))])]
    assert wire.merged(gathered) == [of(kind, (("a",), both))]


def test_entries_are_in_their_order_again():
    first, second = of("count", (("a",), 1), (("b",), 5)), of("count", (("c",), 3), (("a",), 9))
    (both,) = wire.merged([("m1", [first]), ("m2", [second])])
    assert [(entry.key[0], entry.value) for entry in both.entries] == [
        ("c", 3),
        ("b", 5),
        ("a", 10),
    ]


def test_plain_values_stay_apart_by_machine():
    gathered = [("m1", [of("int", (("a",), 1))]), ("m2", [of("int", (("a",), 2))])]
    assert show.text(wire.merged(gathered)) == "@[m1, a]: 1\n@[m2, a]: 2\n"
    assert show.text(wire.merged(gathered[:1])) == "@[a]: 1\n"


@pytest.mark.parametrize(
    "told",
    [None, {}, {"name": "@", "kind": "int", "keyed": True, "top": 0, "divisor": 1},
     {"name": "@", "kind": "int", "keyed": True, "top": 0, "divisor": 1, "entries": [[["a"], []]]},
     {"name": "@", "kind": "int", "keyed": True, "top": 0, "divisor": 1, "entries": [3]}],
)  # fmt: skip
def test_what_is_no_map_is_refused(told: Any):
    with pytest.raises(TraceError, match="a machine told of no map"):
        wire.from_plain(told)


def test_machines_of_different_programs_are_no_whole():
    with pytest.raises(TraceError, match="@: machines told of maps of different kinds"):
        wire.merged([("m1", [of("sum")]), ("m2", [of("min")])])
