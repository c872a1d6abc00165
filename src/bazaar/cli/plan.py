"""`bazaar plan`: what `up` would change."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

import click

from bazaar.cli import output

if TYPE_CHECKING:
    from bazaar.model.change import Change
    from bazaar.spec import Bazaar
    from bazaar.spec.resolved import ResolvedBazaar
    from bazaar.up.cluster_request import Request
    from bazaar.up.plan import Planned

SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "destroy": ("-", "red")}


@click.command(name="plan")
@click.argument("file", required=False)
@output.output_option
def command(file: str | None, output: str) -> int:
    """Show what `bazaar up FILE` would change, and change nothing."""
    from bazaar.cli.output import print_json
    from bazaar.up import client, machine
    from bazaar.up.plan import plan

    wanted, requests = read(file)
    machine.check_certificates(wanted)
    current = client.current(wanted.name)
    machine.check_subnets(wanted, current.subnet)
    secrets = client.read_secrets(wanted)
    changes = plan(wanted, current, secrets)
    planned = on_clusters(wanted, current.applied, secrets, requests)
    changes += planned.changes
    if output == "json":
        print_json({"bazaar": wanted.name, "changes": [asdict(change) for change in changes]})
    else:
        show(wanted, changes, sys.stdout)
    problems = [*planned.problems, *planned.lost.values()]
    for problem in problems:
        print(f"bazaar: {problem}", file=sys.stderr)
    return 1 if problems else 0


def on_clusters(
    wanted: ResolvedBazaar,
    applied: ResolvedBazaar | None,
    secrets: Mapping[str, Mapping[str, str]],
    requests: Sequence[Request],
) -> Planned:
    """What has to change of the sites that are clusters; those are asked where there are some."""
    from bazaar.up.plan import Planned

    if not (wanted.clusters or (applied and applied.clusters)):
        return Planned()
    from bazaar.up import cluster_services

    progress = output.Progress()
    try:
        return cluster_services.plan(wanted, applied, secrets, requests, progress.step)
    finally:
        progress.clear()


def read(file: str | None) -> tuple[ResolvedBazaar, list[Request]]:
    """The description in ``file``, or of the one bazaar that is up, with nothing left open.

    Beside it, what its clusters are to be.
    """
    from bazaar import spec
    from bazaar.up import client

    if file is not None:
        bazaar = spec.load(file, secrets=True)
        return spec.resolve(bazaar), requests_of(bazaar)
    wanted = client.last_wanted(client.the_one(None, "its file: `bazaar plan FILE`"))
    if wanted is None:
        raise click.UsageError("the bazaar's description is unreadable; name its file")
    return wanted, []  # clusters stay as they are


def requests_of(bazaar: Bazaar) -> list[Request]:
    """What the sites of a description that are clusters are to be."""
    if all(site.cluster is None for site in bazaar.sites):
        return []
    from bazaar.up import cluster_file

    return cluster_file.of(bazaar)


def show(wanted: ResolvedBazaar, changes: list[Change], stream: TextIO) -> None:
    """Print a plan: a line a change and the sum of them."""
    replicas = sum(len(service.sites) * service.replicas for service in wanted.services)
    parts = [
        _count(len(wanted.sites), "site"),
        _count(len(wanted.services), "service"),
        _count(replicas, "replica"),
        _count(len(wanted.probes), "probe"),
    ] + (["1 shield"] if wanted.shield else [])
    print(f"{wanted.name}   {', '.join(parts)}", file=stream)
    if not changes:
        print("No changes.", file=stream)
        return
    rows = [_row(change, stream) for change in changes]
    widths = [max(len(row[column]) for row in rows) for column in (1, 2)]
    print(file=stream)
    for sign, kind, name, rest in rows:
        line = f"  {sign} {kind.ljust(widths[0])}  {name.ljust(widths[1])}  {rest}"
        print(line.rstrip(), file=stream)
    counts = Counter(change.action for change in changes)
    print(
        f"\n  {counts['create']} to create, {counts['update']} to change, "
        f"{counts['destroy']} to destroy\n",
        file=stream,
    )


def _row(change: Change, stream: TextIO) -> tuple[str, str, str, str]:
    sign, name = SIGNS.get(change.action, SIGNS["update"])
    why = f"  ({change.why})" if change.why else ""
    return output.colour(sign, name, stream), change.kind, change.name, change.detail + why


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
