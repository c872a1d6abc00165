"""`bazaar logs`: what replicas and containers wrote."""

from __future__ import annotations

import queue
import sys
import threading
import time

import click

from bazaar.model.container import ContainerState


@click.command(name="logs")
@click.argument("names", nargs=-1)
@click.option("--bazaar", help="Whose replicas, where several bazaars are up.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option(
    "--tail", "-n", type=click.IntRange(min=0), default=None, help="The last lines of each alone."
)
@click.option("--since", default=None, help="Nothing older than this: 10s, 5m, 2h.")
def command(
    names: tuple[str, ...], bazaar: str | None, follow: bool, tail: int | None, since: str | None
) -> int:
    """Print what replicas wrote: NAMES are services, SERVICE/SITE, SERVICE/SITE/N, or containers.

    Without NAMES: all replicas of the bazaar. Each line begins with its replica where there
    are several.
    """
    from bazaar.run import containers
    from bazaar.spec.values import duration_seconds
    from bazaar.up import selection

    try:
        moment = time.time() - duration_seconds(since) if since else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
    found = selection.containers(names, bazaar)
    width = max(len(container.name) for container in found)

    def show(container: str, label: str) -> None:
        lines = containers.logs(container, follow=follow, since=moment, tail=tail)
        prefix = f"{label.ljust(width)}  ".encode() if len(found) > 1 else b""
        for line in lines:
            stream = sys.stderr if line.stream == "stderr" and len(found) == 1 else sys.stdout
            stream.buffer.write(prefix + line.text + b"\n" * line.ends)
            stream.flush()

    if not follow:
        for container in found:
            show(container.id, container.name)
        return 0
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def follow_one(container: ContainerState) -> None:
        try:
            show(container.id, container.name)
        except Exception as error:
            ended.put(error)
        else:
            ended.put(None)

    for container in found:
        threading.Thread(target=follow_one, args=(container,), daemon=True).start()
    for _ in found:
        if (error := ended.get()) is not None:
            raise error
    return 0
