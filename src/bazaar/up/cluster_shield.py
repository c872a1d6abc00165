"""The shields at a cluster's edges: what each of them counts, and whom it blocks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bazaar.cluster import agent, edges
from bazaar.cluster.apply import each
from bazaar.cluster.description import Node
from bazaar.up import cluster_agent, cluster_request, cluster_trace


def status(site: str, bazaar: str | None) -> dict[str, list[dict[str, Any]]]:
    """All shields by machine, as `bazaar shield status -o json` there tells of them.

    Raises UsageError where there is no such site, ClusterError with the machines that failed.
    """
    cluster = cluster_request.known(cluster_trace.place(site, (), bazaar).cluster)
    ourselves = cluster_agent.folder()
    found: dict[str, list[dict[str, Any]]] = {}

    async def ask(node: Node) -> None:
        from bazaar.host import remote

        async with remote.connect(node.machine) as there:
            program = await agent.ready(there, ourselves)
            command = f"{program} shield status -o json"
            said = await there.run(command, root=True, what="asking its shield")
            found[node.name] = json.loads(said.output)

    asyncio.run(each(cluster, edges.machines(cluster), ask))
    return found
