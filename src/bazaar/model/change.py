"""One line of a plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """What would be done to one object, and why."""

    action: str  # create | update | replace | destroy
    kind: str  # site | service | replica | probe | shield | volume | balance
    name: str
    detail: str = ""
    why: str = ""
