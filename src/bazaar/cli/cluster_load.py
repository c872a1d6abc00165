"""`bazaar cluster load`: images of this machine, on the machines of a cluster."""

from __future__ import annotations

import click

from bazaar.cli.cluster import meant
from bazaar.cli.output import Progress, output_option, print_json, size, table


@click.command("load")
@meant
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@output_option
def load(name: str | None, images: tuple[str, ...], output: str) -> None:
    """Carry images made or pulled here to a cluster's machines, what they lack of them alone.

    No registry is needed. A pod names the image as IN PODS says, with `imagePullPolicy: Never`.
    """
    from bazaar.up import cluster_images

    progress = Progress()
    try:
        loaded = cluster_images.load(name, images, progress.step)
    finally:
        progress.clear()
    if output == "json":
        rows = [{"image": one.reference, "name": one.name, "sent": one.sent} for one in loaded]
        print_json(rows)
        return
    header = ("IMAGE", "IN PODS", "MACHINES", "SENT")
    print(
        table(
            header,
            [
                (one.reference, one.name, str(len(one.sent)), size(sum(one.sent.values())))
                for one in loaded
            ],
        )
    )
