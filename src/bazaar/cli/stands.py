"""`bazaar stands`: the catalogue of ready-made services."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bazaar.cli.output import output_option, print_json, table

if TYPE_CHECKING:
    from bazaar.spec.stands import Stand


@click.command("stands")
@click.argument("name", required=False)
@output_option
def command(name: str | None, output: str) -> None:
    """List the ready-made services of the catalogue, or show the one called NAME."""
    from bazaar.spec import stands

    if name is not None:
        stand = stands.get(name)
        if output == "json":
            print_json(asdict(stand))
        else:
            print(_described(stand))
        return
    found = stands.catalogue()
    if output == "json":
        print_json([asdict(stand) for stand in found])
        return
    rows = [
        (stand.name, stand.technology, stand.organisation, stand.port or "", stand.licence)
        for stand in found
    ]
    print(table(("STAND", "TECHNOLOGY", "ORGANISATION", "PORT", "LICENCE"), rows))
    print("\n`bazaar stands NAME` tells more; `bazaar take NAME` runs one at once.")


def _described(stand: Stand) -> str:
    facts = [
        ("technology", stand.technology),
        ("organisation", stand.organisation),
        ("licence", stand.licence),
        ("home page", stand.home),
        ("image", stand.image),
        ("port", f"{stand.port} ({stand.mode})" if stand.port else ""),
        ("health", f"{stand.health.kind} {stand.health.path}" if stand.mode == "http" else "tcp"),
        ("kernel", stand.kernel),
        ("data", f"{stand.volume}" if stand.volume else ""),
        ("replicas", "one: copies of it would not replicate" if stand.stateful else "any number"),
    ]
    lines = [f"{stand.name}  {stand.summary}", ""]
    lines += [f"{name:<14}{value}" for name, value in facts if value]
    if stand.settings:
        lines += ["", "environment"]
        width = max(len(name) for name, _ in stand.settings) + 2
        lines += [f"  {name:<{width}}{purpose}" for name, purpose in stand.settings]
    lines += ["", "to read"]
    lines += [f"  {reading.title}: {reading.url}" for reading in stand.read]
    lines += [
        "",
        "in a bazaar",
        f"  services: {{{stand.name}: {{stand: {stand.name}}}}}",
    ]
    return "\n".join(lines)
