"""One measured figure of a benchmark or drill."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, the rival's in the same run, and whether the goal holds.

    ``ratio`` is value / rival_value. ``holds`` is None where there is no goal.
    """

    name: str  # begins with the drill's or benchmark's own: boot.p50
    value: float | None
    unit: str
    rival: str | None = None
    rival_value: float | None = None
    ratio: float | None = None
    goal: str | None = None
    holds: bool | None = None
    note: str = ""
