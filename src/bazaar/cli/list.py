"""`bazaar list`: the bazaars of this machine."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from bazaar.cli import output


@click.command(name="list")
@output.output_option
def command(output: str) -> int:
    """List the bazaars of this machine: those that are up, and those that left something.

    down: nobody supervises it, as after a reboot; `bazaar up FILE` starts it again. volumes: it
    was taken down and its volumes were kept.
    """
    from bazaar.cli.output import print_json
    from bazaar.host import paths
    from bazaar.up import listing

    found = listing.bazaars()
    if output == "json":
        print_json(found)
        return 0
    print(render(found))
    if not found:
        print(f"There is none in {paths.state()}; `bazaar up FILE` makes one.", file=sys.stderr)
    return 0


def render(found: list[dict[str, Any]]) -> str:
    """One line a bazaar."""
    rows = [
        (one["name"], one["state"], _since(one), _healthy(one), _volumes(one), one["folder"])
        for one in found
    ]
    return output.table(("BAZAAR", "STATE", "UP", "HEALTHY", "VOLUMES", "FOLDER"), rows)


def _since(one: dict[str, Any]) -> str:
    from bazaar.cli.status import duration

    return "-" if one["since"] is None else duration(round(time.time() - one["since"]))


def _healthy(one: dict[str, Any]) -> str:
    return "-" if one["wanted"] is None else f"{one['healthy']}/{one['wanted']}"


def _volumes(one: dict[str, Any]) -> str:
    return ", ".join(one["volumes"]) or "-"
