"""`bazaar cluster doctor`: what is wrong with a cluster, and what helps."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bazaar.cli.cluster import described, meant
from bazaar.cli.output import Progress, colour, output_option, print_json


@click.command("doctor")
@described
@meant
@output_option
def doctor(name: str | None, output: str) -> None:
    """Look for faults on every machine, each with its remedy; exit 1 where something fails.

    Clock, disk, units, certificates, etcd, DNS, and what the CIS benchmark asks of flags,
    settings and files (its numbers are shown).
    """
    from bazaar.up import cluster_life

    progress = Progress()
    try:
        cluster, answered, found = cluster_life.doctor(name, progress.step)
    finally:
        progress.clear()
    failures = sum(one.severity == "fail" for one in found)
    if output == "json":
        head = {"cluster": cluster.name, "machines": len(cluster.nodes), "answered": answered}
        print_json({**head, "failures": failures, "findings": [asdict(one) for one in found]})
        sys.exit(1 if failures else 0)
    for one in found:
        sign = colour("✗", "red") if one.severity == "fail" else colour("!", "yellow")
        number = f"   (CIS {one.number})" if one.number else ""
        print(f"  {sign} {one.node or cluster.name}: {one.what}{number}")
        print(f"      {one.remedy}")
    warnings = len(found) - failures
    count = len(cluster.nodes)
    print(f"{failures} failed, {warnings} to consider, on {count} machine{'s' * (count != 1)}.")
    sys.exit(1 if failures else 0)
