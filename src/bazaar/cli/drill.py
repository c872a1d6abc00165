"""`bazaar drill`: measure the running bazaar."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bazaar.cli import output

if TYPE_CHECKING:
    from bazaar.model.figure import Figure


@click.command(name="drill")
@click.argument("drills", nargs=-1, metavar="[boot|trace|flood|site|crash|all]...")
@click.option("--bazaar", "name", help="Which bazaar, where several are up.")
@output.output_option
def command(drills: tuple[str, ...], name: str | None, output: str) -> int:
    """Measure what is claimed, on the bazaar that is up: all drills, or those named.

    Traffic stays in namespaces the drills make; each is bounded in time and takes away what it
    made. Exit code 1 when a goal does not hold.
    """
    from bazaar.cli.output import Progress, print_json
    from bazaar.host import facts
    from bazaar.up import client, drill

    client.need_root()
    progress = Progress()
    figures = drill.run(client.the_one(name), drills, progress.step)
    progress.clear()
    if output == "json":
        print_json({"machine": facts.machine(), "figures": [asdict(figure) for figure in figures]})
    else:
        print(table(figures))
    return 1 if any(figure.holds is False for figure in figures) else 0


def table(figures: list[Figure]) -> str:
    """Figures as people read them, the notes below."""
    rows = [
        [
            figure.name,
            _value(figure.value, figure.unit),
            figure.goal or "-",
            f"{figure.rival} {_value(figure.rival_value, figure.unit)}" if figure.rival else "-",
            {True: "holds", False: "FAILS", None: "-"}[figure.holds],
        ]
        for figure in figures
    ]
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    text = output.table(["DRILL", "MEASURED", "GOAL", "RIVAL", ""], rows)
    return "\n".join([text, "", *notes]) if notes else text


def _value(value: float | None, unit: str) -> str:
    return "missing" if value is None else f"{value:,.4g} {unit}"
