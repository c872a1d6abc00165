"""A mistake in a text the user wrote."""

from __future__ import annotations

from bazaar.model.record import record


@record
class Problem:
    """One mistake: where it stands and what would be accepted.

    ``line`` and ``column`` count from 1; 0 means the place is not known.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    def __str__(self) -> str:
        numbers = [str(number) for number in (self.line, self.column) if number]
        place = ":".join(part for part in (self.file, *numbers) if part)
        return "  ".join(part for part in (place, self.path and f"{self.path}:") if part) + (
            f" {self.message}" if self.path else f"  {self.message}" if place else self.message
        )
