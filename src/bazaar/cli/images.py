"""`bazaar images`: what images are on this machine."""

from __future__ import annotations

import click

from bazaar.cli.output import Progress, output_option, print_json, table


@click.command()
@click.option(
    "--pull", "pulled", multiple=True, metavar="IMAGE", help="Get this image, or its newest."
)
@click.option(
    "--remove", "removed", multiple=True, metavar="IMAGE", help="Remove it and its own layers."
)
@output_option
def command(pulled: tuple[str, ...], removed: tuple[str, ...], output: str) -> int:
    """List images; --pull and --remove change what is there first."""
    from bazaar.errors import ImageError
    from bazaar.run import images

    progress = Progress()
    for reference in pulled:
        try:
            images.ensure(reference, progress.step, pull="always")
        finally:
            progress.clear()
    for reference in removed:
        if not images.remove(reference):
            raise ImageError(
                f"{reference} is not on this machine", hint="`bazaar images` lists them"
            )
    found = images.listing()
    if output == "json":
        print_json(
            [
                {
                    "reference": image.reference,
                    "digest": image.digest,
                    "size": image.size,
                    "layers": [layer.name for layer in image.layers],
                }
                for image in found
            ]
        )
        return 0
    rows = [
        (
            image.reference,
            image.digest.removeprefix("sha256:")[:12],
            f"{image.size / 1e6:.0f} MB",
            len(image.layers),
        )
        for image in found
    ]
    print(table(("IMAGE", "DIGEST", "SIZE", "LAYERS"), rows))
    return 0
