"""A trace program on the machines of a site that is a cluster, its results put together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bazaar.cluster import agent
from bazaar.cluster.description import Node
from bazaar.errors import BazaarError, ClusterError, UsageError
from bazaar.model.record import record
from bazaar.trace import wire
from bazaar.trace.read import MapValue
from bazaar.up import client, cluster_agent, cluster_request, cluster_sites

_MARGIN = 60  # seconds a program may live past its time, to tell what it has


@record
class Said:
    """Something that came while a program ran."""

    machine: str
    what: Mapping[str, Any]  # attached, text and json, lost, full


@record
class Place:
    """Where a program is to run, and whose events it is to see there; all, where none is named."""

    cluster: str
    nodes: Sequence[Node]
    pods: Sequence[str] = ()  # NAMESPACE/NAME


def place(site: str, pods: Sequence[str], bazaar: str | None) -> Place:
    """The machines of a site that have the pods meant, or all. Raises UsageError."""
    name = client.the_one(bazaar)
    known = cluster_sites.stored(name)
    if site not in known:
        there = f"those of {name} are {', '.join(known)}" if known else f"{name} has none"
        raise UsageError(
            f"there is no site {site} that is a cluster: {there}",
            hint="without --site it is about this machine",
        )
    cluster = cluster_request.known(known[site].access.cluster)
    if not pods:
        return Place(cluster.name, cluster.members)
    services = client.call(name, "status")["services"]
    rows: list[dict[str, Any]] = [
        {**row, "service": service["name"]}
        for service in services
        for row in service["replicas"]
        if row["site"] == site
    ]
    chosen: list[dict[str, Any]] = []
    for pod in pods:
        found = [row for row in rows if pod in (row["container"], row["service"], row["id"])]
        if not found:
            there = ", ".join(row["container"] for row in rows) or "none"
            raise UsageError(f"there is no pod {pod} in {site}", hint=f"there are: {there}")
        chosen += found
    nodes = {row["node"] for row in chosen}
    names = dict.fromkeys(f"{name}/{row['container']}" for row in chosen)
    return Place(cluster.name, [n for n in cluster.members if n.name in nodes], tuple(names))


def run(
    where: Place, words: Sequence[str], duration: float | None, on_said: Callable[[Said], None]
) -> list[MapValue]:
    """Run a program, given as `bazaar trace` takes it, on all machines until it ends everywhere.

    SIGINT and SIGTERM end it; so does ``duration``. The maps of all, as one. Raises ClusterError
    with what machines failed of, once the others have ended.
    """
    return asyncio.run(_run(where, words, duration, on_said))


async def _run(
    where: Place, words: Sequence[str], duration: float | None, on_said: Callable[[Said], None]
) -> list[MapValue]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    options = [word for pod in where.pods for word in ("--container", pod)]
    if duration is not None:
        options += ["--duration", f"{duration:g}"]
    command = ["trace", "--wire", *options, *words]
    try:
        results = await asyncio.gather(
            *(_on(node, command, duration, stop, on_said) for node in where.nodes),
            return_exceptions=True,
        )
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    gathered: list[tuple[str, list[MapValue]]] = []
    problems: list[BazaarError] = []
    for node, result in zip(where.nodes, results, strict=True):
        if isinstance(result, BazaarError):
            problems.append(result)
        elif isinstance(result, BaseException):
            raise result
        else:
            gathered.append((node.name, result))
    if problems:
        text = "\n".join(dict.fromkeys(problem.message for problem in problems))
        raise ClusterError(text, hint=problems[0].hint)
    return wire.merged(gathered)


async def _on(
    node: Node,
    words: Sequence[str],
    duration: float | None,
    stop: asyncio.Event,
    on_said: Callable[[Said], None],
) -> list[MapValue]:
    from bazaar.host import remote

    maps: list[MapValue] = []
    async with remote.connect(node.machine) as there:
        program = await agent.ready(there, await asyncio.to_thread(cluster_agent.folder))
        # Nothing stays behind, whatever becomes of us and the connection.
        limit = f"timeout -k 5 {duration + _MARGIN:g} " if duration is not None else ""
        command = f"{limit}{program} {shlex.join(words)}"
        stream = there.stream(command, stop, root=True, what="bazaar trace")
        async with contextlib.aclosing(stream):
            async for line in stream:
                what = _line(node, line)
                if "maps" in what:
                    maps = [wire.from_plain(one) for one in what["maps"]]
                on_said(Said(node.name, what))
    return maps


def _line(node: Node, line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found: Any = json.loads(line)
        if isinstance(found, dict):
            return found  # pyright: ignore[reportUnknownVariableType]
    raise ClusterError(f"{node.name}: bazaar trace said what is not its own: {line[:80]!r}")
