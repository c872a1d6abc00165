"""`bazaar logs`: what replicas and containers wrote."""

from __future__ import annotations

import json
import queue
import select
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from bazaar.cli.output import output_option
from bazaar.model.container import ContainerState

if TYPE_CHECKING:
    from bazaar.run.logs import LogLine


@click.command(name="logs")
@click.argument("names", nargs=-1)
@click.option("--bazaar", help="Whose replicas, where several bazaars are up.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option(
    "--tail", "-n", type=click.IntRange(min=0), default=None, help="The last lines of each alone."
)
@click.option("--since", default=None, help="Nothing older than this: 10s, 5m, 2h.")
@output_option
def command(
    names: tuple[str, ...],
    bazaar: str | None,
    follow: bool,
    tail: int | None,
    since: str | None,
    output: str,
) -> int:
    """Print what replicas wrote: NAMES are services, SERVICE/SITE, SERVICE/SITE/N, or containers.

    Without NAMES: all replicas of the bazaar. Each line begins with its replica where there
    are several. `-o json` prints one object a line, with its time and stream.
    """
    from bazaar.run import containers
    from bazaar.spec.values import duration_seconds
    from bazaar.up import cluster_pods, selection

    try:
        moment = time.time() - duration_seconds(since) if since else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
    found = selection.containers(names, bazaar)
    width = max(len(container.name) for container in found)

    def show(container: ContainerState) -> None:
        if cluster_pods.is_pod(container):
            lines = cluster_pods.logs(container, follow=follow, since=moment, tail=tail)
        else:
            lines = containers.logs(container.id, follow=follow, since=moment, tail=tail)
        prefix = f"{container.name.ljust(width)}  ".encode() if len(found) > 1 else b""
        for line in lines:
            if output == "json":
                sys.stdout.write(_as_json(line, container.id, container.name))
                sys.stdout.flush()
                continue
            stream = sys.stderr if line.stream == "stderr" and len(found) == 1 else sys.stdout
            stream.buffer.write(prefix + line.text + b"\n" * line.ends)
            stream.flush()

    if not follow:
        for container in found:
            show(container)
        return 0
    ended: queue.Queue[BaseException | None] = queue.Queue()

    def follow_one(container: ContainerState) -> None:
        try:
            show(container)
        except Exception as error:
            ended.put(error)
        else:
            ended.put(None)

    for container in found:
        threading.Thread(target=follow_one, args=(container,), daemon=True).start()
    left = len(found)
    while left:
        try:
            error = ended.get(timeout=0.5)
        except queue.Empty:
            # A pipe's reader may go while there is nothing to write.
            if _reader_left():
                raise BrokenPipeError from None
            continue
        if error is not None:
            raise error
        left -= 1
    return 0


def _reader_left() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _as_json(line: LogLine, container: str, name: str) -> str:
    """One object: ``ends`` is false for the part of a long line that goes on in the next."""
    about = {
        "time": line.time,
        "container": container,
        "name": name,
        "stream": line.stream,
        "text": line.text.decode(errors="replace"),
        "ends": line.ends,
    }
    return json.dumps(about) + "\n"
