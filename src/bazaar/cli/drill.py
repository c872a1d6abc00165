"""`bazaar drill`: measure the running bazaar."""

from __future__ import annotations

import click

from bazaar.cli import output


@click.command(name="drill")
@click.argument("drills", nargs=-1, metavar="[boot|trace|flood|site|crash|all]...")
@click.option("--bazaar", "name", help="Which bazaar, where several are up.")
@click.option("--site", help="Which one the drill `site` loses; one that others can replace.")
@output.output_option
def command(drills: tuple[str, ...], name: str | None, site: str | None, output: str) -> int:
    """Measure what is claimed, on the bazaar that is up: all drills, or those named.

    Traffic stays in namespaces the drills make; each is bounded in time and takes away what it
    made. Exit code 1 when a goal does not hold.
    """
    from bazaar.cli.figures import show
    from bazaar.cli.output import Progress
    from bazaar.up import client, drill

    client.need_root()
    drill.choose(drills)
    progress = Progress()
    figures = drill.run(client.the_one(name), drills, progress.step, site=site)
    progress.clear()
    return show(figures, as_json=output == "json", title="DRILL")
