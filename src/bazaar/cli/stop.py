"""`bazaar stop`: end containers of `bazaar run`."""

from __future__ import annotations

import click


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "-t",
    "--time",
    "seconds",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="Seconds until it is killed.",
)
def command(names: tuple[str, ...], seconds: float) -> int:
    """Ask containers to end, and make them after a while."""
    from bazaar.cli import container_names
    from bazaar.run import containers

    def stop(container: str, name: str) -> None:
        containers.stop(container, seconds)
        print(name)

    return container_names.each(names, stop)
