"""What a program falls into: units, one a BPF program, and the maps they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from bazaar.model.record import record
from bazaar.trace import points, tree
from bazaar.trace.points import ProbePoint
from bazaar.trace.types import Type


class MapInfo:
    """What is known of one map; ``keys`` and ``value`` are None until they are seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: tuple[Type, ...] | None = None
        self.value: Type | None = None


class Unit:
    """One clause at one kind of place: what becomes one BPF program.

    ``points`` are the places that share the program; ``types`` has the type of each
    expression by its id().
    """

    def __init__(self, clause: tree.Clause, points: list[ProbePoint]) -> None:
        self.clause = clause
        self.points = points
        self.variables: dict[str, Type] = {}
        self.types: dict[int, Type] = {}

    @property
    def point(self) -> ProbePoint:
        return self.points[0]


@record
class Checked:
    """A program that makes sense."""

    text: str
    program: tree.Program
    parameters: tuple[str, ...]
    units: list[Unit]
    maps: dict[str, MapInfo]


def of_clause(text: str, clause: tree.Clause, parameters: Sequence[str]) -> list[Unit]:
    """A unit for each point; tracepoints share one where the body cannot tell them apart."""
    found: list[ProbePoint] = []
    for point in clause.points:
        found += points.resolve(text, point, parameters)
    apart = _names(clause) & {"args", "probe"}
    groups: dict[str, list[ProbePoint]] = {}
    for point in found:
        alone = apart or point.kind != "tracepoint"
        groups.setdefault(point.text if alone else "tracepoint", []).append(point)
    return [Unit(clause, group) for group in groups.values()]


def _names(clause: tree.Clause) -> set[str]:
    """The builtins a clause uses."""
    found: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, tree.Name):
            found.add(node.name)
        elif isinstance(node, tuple):
            for one in cast("tuple[Any, ...]", node):
                look(one)
        elif slots := getattr(node, "__slots__", None):
            for slot in slots:
                if not slot.endswith("span"):
                    look(getattr(node, slot))

    look((clause.predicate, clause.body))
    return found
