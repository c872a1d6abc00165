"""How drills and benchmarks print: a table, or one JSON object (docs/reference/figures.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from bazaar.cli import output
from bazaar.host import facts
from bazaar.model.figure import Figure


def show(figures: Sequence[Figure], *, as_json: bool, title: str = "FIGURE") -> int:
    """Print figures to stdout; 1 when a goal does not hold, else 0."""
    if as_json:
        rows = [asdict(figure) for figure in figures]
        output.print_json({"machine": facts.machine(), "figures": rows})
    else:
        print(table(figures, title))
    return 1 if any(figure.holds is False for figure in figures) else 0


def table(figures: Sequence[Figure], title: str) -> str:
    """Figures as people read them, the notes below."""
    rows = [
        [
            figure.name,
            _value(figure.value, figure.unit),
            figure.goal or "-",
            f"{figure.rival}: {_value(figure.rival_value, figure.unit)}" if figure.rival else "-",
            "-" if figure.ratio is None else f"{figure.ratio:.2f}",
            {True: "holds", False: "FAILS", None: "-"}[figure.holds],
        ]
        for figure in figures
    ]
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    text = output.table([title, "MEASURED", "GOAL", "RIVAL", "RATIO", ""], rows)
    return "\n".join([text, "", *notes]) if notes else text


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "missing"
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
    return f"{shown} {unit}"
