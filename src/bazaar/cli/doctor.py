"""`bazaar doctor`: what this machine needs, what is there, and installing the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bazaar.cli.output import Progress, colour, output_option, print_json, table

if TYPE_CHECKING:
    from bazaar.up.doctor import Need


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Install what can be installed (Debian and Ubuntu).")
@output_option
def command(fix: bool, output: str) -> int:
    """List what this machine needs, what is there, and how to get the rest.

    Ends with 1 when something is missing without which no service runs.
    """
    from dataclasses import asdict

    from bazaar.errors import BazaarError
    from bazaar.host import packages
    from bazaar.up import doctor

    found = doctor.needs()
    failure: BazaarError | None = None
    if fix and doctor.missing(found):
        progress = Progress()
        try:
            doctor.ensure(found, progress.step)
        except BazaarError as error:
            failure = error
        finally:
            progress.clear()
        found = doctor.needs()
    lacking = doctor.missing(found)
    hard = [need for need in lacking if need.essential]
    if output == "json":
        print_json(
            {
                "system": packages.system().name,
                "ready": not hard,
                "needs": [asdict(need) for need in found],
            }
        )
    else:
        rows = [
            (
                need.name,
                _mark(need),
                ", ".join(need.layers) if len(need.layers) < len(doctor.LAYERS) else "all",
                need.purpose,
                need.found,
            )
            for need in found
        ]
        print(table(("NEED", "THERE", "FOR", "WHAT FOR", "FOUND"), rows))
        _print_rest(lacking, fix)
    if failure is not None:
        raise failure
    return 1 if hard else 0


def _mark(need: Need) -> str:
    return "yes" if need.present else "MISSING" if need.essential else "no"


def _print_rest(lacking: list[Need], fixed: bool) -> None:
    if not lacking:
        print("\nEverything is there.")
        return
    print()
    for need in lacking:
        word = colour("missing", "red" if need.essential else "yellow")
        print(f"{word}  {need.name}: {need.remedy}")
    if not fixed and any(need.package or need.kind == "engine" for need in lacking):
        print("\n`bazaar doctor --fix` installs what can be installed.")
