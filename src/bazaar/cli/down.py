"""`bazaar down`: take a bazaar away."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from bazaar.cli import output


@click.command(name="down")
@click.argument("bazaar", required=False)
@click.option("--volumes", is_flag=True, help="Take its named volumes away too.")
@click.option("--clusters", is_flag=True, help="Take the clusters of its sites away too.")
@click.option("--forget", is_flag=True, help="Leave clusters that do not answer as they are.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before data is lost.")
def command(bazaar: str | None, volumes: bool, clusters: bool, forget: bool, yes: bool) -> int:
    """Take BAZAAR (a name or its file) away; its named volumes stay unless --volumes is said.

    Sites that are clusters are left without its services, and stay unless --clusters is said.
    """
    from bazaar.host import paths
    from bazaar.host.files import lock
    from bazaar.up import client, teardown

    client.need_root()
    name = client.the_one(bazaar, "`bazaar down NAME`")
    kept = sorted(entry.name for entry in (paths.bazaar(name) / "volumes").glob("*"))
    places = _clusters(name)
    lost = [f"the volumes {', '.join(kept)}"] if volumes and kept else []
    if places and volumes:
        lost.append(f"its volumes on {', '.join(places)}")
    if places and clusters:
        lost.append(f"all that is on {', '.join(places)}")
    if lost and not yes:
        what = ", and ".join(lost)
        if not sys.stdin.isatty():
            raise click.UsageError(f"this destroys {what}; say --yes to do it")
        if not click.confirm(f"This destroys {what}. Go on?", err=True):
            raise click.Abort
    began = time.monotonic()
    progress = output.Progress()

    def emit(event: dict[str, Any]) -> None:
        progress.step(f"Down     {event['name']}")

    stay = [] if volumes else kept
    lock_file = paths.state() / "bazaars" / f"{name}.lock"
    with lock(lock_file, "down"):
        if places:
            stay += _leave_clusters(name, places, volumes, clusters, forget, progress)
        teardown.remove(name, emit, volumes=volumes)
        progress.clear()
        lock_file.unlink(missing_ok=True)
    teardown.remove_empty_folders()
    rest = f"  Volumes kept: {', '.join(stay)}" if stay else ""
    if places and not clusters:
        rest += f"  Clusters stay: {', '.join(places)}; `bazaar cluster reset` takes one away"
    print(f"{name} is down, in {time.monotonic() - began:.1f} s.{rest}", file=sys.stderr)
    return 0


def _clusters(bazaar: str) -> list[str]:
    """The clusters that have, or may have, something of a bazaar."""
    from bazaar.up import client

    known = [client.last_wanted(bazaar, file) for file in ("applied.json", "wanted.json")]
    return list(dict.fromkeys(name for one in known if one for name in one.clusters.values()))


def _leave_clusters(
    bazaar: str,
    places: list[str],
    volumes: bool,
    clusters: bool,
    forget: bool,
    progress: output.Progress,
) -> list[str]:
    """Take a bazaar out of its clusters, or these with it; the volumes that stay there."""
    from bazaar.cluster import store
    from bazaar.up import cluster_services
    from bazaar.up import clusters as whole

    if not clusters:
        return cluster_services.remove(
            bazaar, places, volumes=volumes, forget=forget, progress=progress.step
        )
    for place in places:
        if place in store.names():
            whole.reset(place, progress.step, forget=forget)
    return []
