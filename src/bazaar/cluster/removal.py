"""Taking a cluster away from machines: what we put there goes, what was there before stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import filled
from bazaar.errors import ClusterError

Progress = Callable[[str], None]


def script(cluster: Cluster) -> str:
    """The shell script that does it on one machine; it refuses one that is another cluster's."""
    text = (Path(__file__).parent / "removal.sh").read_text()
    return filled(text).replace("@NAME@", cluster.name)


async def reset(cluster: Cluster, progress: Progress) -> None:
    """Take the cluster away from every machine. Raises ClusterError with those that failed."""
    from bazaar.cluster.apply import each
    from bazaar.host import remote

    async def clear(node: Node) -> None:
        async with remote.connect(node.machine) as there:
            await there.run(script(cluster), root=True, timeout=120, what="taking the cluster away")

    progress(f"{cluster.name}: taking it away from {len(cluster.nodes)} machines")
    try:
        await each(cluster, cluster.nodes, clear)
    except ClusterError as error:
        raise ClusterError(
            error.message,
            hint="run the same again when they answer; where they are lost for good: --forget",
        ) from error
