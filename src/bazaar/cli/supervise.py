"""`bazaar supervise`: a bazaar's supervisor in the foreground, as systemd calls it."""

from __future__ import annotations

import click


@click.command(name="supervise")
@click.argument("bazaar")
def command(bazaar: str) -> int:
    """Keep BAZAAR as it was last wanted, until SIGTERM; what it runs goes on after that."""
    from bazaar.up import client, guardian

    client.need_root()
    return guardian.guard(bazaar)
