"""`bazaar rm`: remove containers of `bazaar run`, with what they wrote."""

from __future__ import annotations

import click


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Stop those that run, first.")
def command(names: tuple[str, ...], force: bool) -> int:
    """Remove containers, their logs and what they wrote; named volumes stay."""
    from bazaar.cli import container_names
    from bazaar.run import containers
    from bazaar.site import run_network

    def remove(container: str, name: str) -> None:
        containers.remove(container, force=force)
        run_network.disconnect_run(container)
        print(name)

    return container_names.each(names, remove)
