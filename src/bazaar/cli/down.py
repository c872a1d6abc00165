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
@click.option("--yes", "-y", is_flag=True, help="Do not ask before data is lost.")
def command(bazaar: str | None, volumes: bool, yes: bool) -> int:
    """Take BAZAAR (a name or its file) away; its named volumes stay unless --volumes is said."""
    from bazaar.host import paths
    from bazaar.host.files import lock
    from bazaar.up import client, teardown

    client.need_root()
    name = client.the_one(bazaar, "`bazaar down NAME`")
    kept = sorted(entry.name for entry in (paths.bazaar(name) / "volumes").glob("*"))
    if volumes and kept and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this destroys volumes: {', '.join(kept)}; say --yes to do it")
        if not click.confirm(f"This destroys the volumes {', '.join(kept)}. Go on?", err=True):
            raise click.Abort
    began = time.monotonic()
    progress = output.Progress()

    def emit(event: dict[str, Any]) -> None:
        progress.step(f"Down     {event['name']}")

    lock_file = paths.state() / "bazaars" / f"{name}.lock"
    with lock(lock_file, "down"):
        teardown.remove(name, emit, volumes=volumes)
        progress.clear()
        lock_file.unlink(missing_ok=True)
    teardown.remove_empty_folders()
    rest = f"  Volumes kept: {', '.join(kept)}" if kept and not volumes else ""
    print(f"{name} is down, in {time.monotonic() - began:.1f} s.{rest}", file=sys.stderr)
    return 0
