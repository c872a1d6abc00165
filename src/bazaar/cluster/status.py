"""How a cluster is: each machine by its own word and by the API's, and until when keys are true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from bazaar.cluster import facts as ask
from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import Facts
from bazaar.errors import BazaarError
from bazaar.model.record import record

Progress = Callable[[str], None]


@record
class NodeStatus:
    """One machine."""

    name: str
    address: str
    role: str  # control-plane | worker
    state: str  # ready | not ready | cordoned | not registered | unreachable
    version: str  # of its kubelet; "" where the API does not know it
    failing: tuple[str, ...]  # units that should run and do not
    etcd: str  # started | unstarted | "" where it is no member
    certificates_until: float  # when the first of its certificates ends, seconds since 1970
    reason: str = ""


@record
class Status:
    """All of a cluster."""

    cluster: Cluster
    api: bool  # whether a control plane answered for the API
    nodes: tuple[NodeStatus, ...]

    @property
    def healthy(self) -> bool:
        return self.api and all(n.state == "ready" and not n.failing for n in self.nodes)


def status(cluster: Cluster, keys: Mapping[str, Any], progress: Progress) -> Status:
    """Ask all machines; one that does not answer is told, not raised."""
    progress(f"{cluster.name}: asking {len(cluster.nodes)} machines")
    answers = asyncio.run(_ask(cluster))
    members = {name for one in answers.values() if isinstance(one, Facts) for name in one.members}
    told = [answer for answer in answers.values() if isinstance(answer, Facts) and answer.nodes]
    known = told[0] if told else None
    ends = _ends(keys)
    rows = tuple(
        _row(cluster, node, answers[node.name], known, members, ends) for node in cluster.nodes
    )
    return Status(cluster, known is not None, rows)


async def _ask(cluster: Cluster) -> dict[str, Facts | BazaarError]:
    from bazaar.host import remote

    async def one(node: Node) -> Facts | BazaarError:
        try:
            async with remote.connect(node.machine, timeout=5) as there:
                result = await there.run(
                    ask.script(api=node.control_plane or node.etcd),
                    root=True,
                    what="reading its facts",
                )
                return ask.parse(result.output, node.name)
        except BazaarError as error:
            return error

    answers = await asyncio.gather(*map(one, cluster.nodes))
    return {node.name: answer for node, answer in zip(cluster.nodes, answers, strict=True)}


def _row(
    cluster: Cluster,
    node: Node,
    answer: Facts | BazaarError,
    known: Facts | None,
    members: set[str],
    ends: Mapping[str, float],
) -> NodeStatus:
    failing: tuple[str, ...] = ()
    reason = ""
    if isinstance(answer, Facts):
        units = answer.units.items()
        failing = tuple(name.removesuffix(".service") for name, u in units if u.active != "active")
    else:
        reason = answer.message
    state, version = "unreachable" if reason else "not registered", ""
    seen = known.nodes.get(node.name) if known else None
    if seen is not None:
        version = seen.version
        if not reason:
            state = "ready" if seen.ready else "not ready"
        if seen.ready and seen.unschedulable:
            state = "cordoned"
    role = "etcd" if node.etcd else "control-plane" if node.control_plane else "worker"
    if node.etcd and not reason:  # it is no node, and never will be
        state = "ready" if isinstance(answer, Facts) and answer.units else "not ready"
    holds = any(one.name == node.name for one in cluster.stores)
    etcd = ("started" if node.name in members else "absent") if holds else ""
    until = ends.get(node.name, 0.0)
    return NodeStatus(node.name, node.ip, role, state, version, failing, etcd, until, reason)


def _ends(keys: Mapping[str, Any]) -> dict[str, float]:
    """When the first certificate of each node ends."""
    found: dict[str, float] = {}
    for name, pair in keys["pairs"].items():
        node = name.partition("/")[0]
        found[node] = min(found.get(node, float("inf")), pair["until"])
    return found


def days(until: float) -> int:
    """Whole days from now."""
    return int((until - time.time()) // 86400)
