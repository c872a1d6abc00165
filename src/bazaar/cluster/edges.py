"""Edges: machines of a cluster at which the world reaches a bazaar's services.

Each runs HAProxy over the pods of all clusters, those of its own first, and has CoreDNS serve the
names of all edges that answer. They need nobody of ours to go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bazaar.cluster import agent
from bazaar.cluster.apply import each
from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.scripts import head
from bazaar.model.record import field, record

if TYPE_CHECKING:
    from bazaar.host.remote import Connection

Progress = Callable[[str], None]
EDGES = "/etc/bazaar-edge"
COUNT = 2  # of each cluster, where it has as many machines
_SHIELD = "shield"  # the file with its shield's options
_SECONDS = 300.0  # HAProxy may have to be installed
_EDGE_UNIT = """\
[Unit]
Description=The edge of the bazaar %i
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
WorkingDirectory={folder}/%i
ExecStart={haproxy} -Ws -C {folder}/%i -f haproxy.cfg
ExecReload={haproxy} -c -q -C {folder}/%i -f haproxy.cfg
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
Restart=always
RestartSec=1
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""
_NAMES_UNIT = """\
[Unit]
Description=The names of the bazaar %i
After=network-online.target

[Service]
ExecStart={folder}/%i/names.sh
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""
_ZONE = """\
{domain}:53 {{
  bind {address}
  errors
  file {folder}/zone {domain} {{
    reload 2s
  }}
}}
"""


@record
class Edge:
    """One machine, and what it is to serve."""

    node: str
    address: str
    configuration: str  # HAProxy's, in which paths are below the edge's own folder
    certificates: Mapping[str, str] = field(default_factory=dict)  # name: PEM with its key
    shield: Sequence[str] = ()  # the options of its `bazaar shield on`; none: it has none


@record
class Names:
    """The zone that the edges serve."""

    domain: str
    services: Sequence[str]


def machines(cluster: Cluster) -> list[Node]:
    """Those that are edges: workers before control planes, in the order of the description."""
    return [*cluster.workers, *cluster.control_planes][:COUNT]


def files(
    bazaar: str, edge: Edge, others: Sequence[tuple[str, int]], names: Names | None
) -> dict[str, str]:
    """All that lies in the folder of an edge; ``others`` are all edges, each with a port it has."""
    folder = f"{EDGES}/{bazaar}"
    here = Path(__file__).parent
    domain = f"{names.domain} {' '.join(names.services)}\n" if names else ""
    found = {
        "haproxy.cfg": edge.configuration,
        "edges": "".join(f"{address} {port}\n" for address, port in others),
        "names": domain,
        "names.sh": (here / "names.sh").read_text(),
        "edge.service": _EDGE_UNIT.format(folder=EDGES, haproxy="/usr/sbin/haproxy"),
        "names.service": _NAMES_UNIT.format(folder=EDGES),
    }
    if names:
        found["zone.conf"] = _ZONE.format(domain=names.domain, address=edge.address, folder=folder)
    if edge.shield:
        found[_SHIELD] = f"{edge.address} {shlex.join(edge.shield)}\n"
    found |= {f"certificates/{name}.pem": pem for name, pem in edge.certificates.items()}
    return found


def digest(content: Mapping[str, str]) -> str:
    """By which an edge is known to be as wanted."""
    whole = "\0".join(f"{name}\0{text}" for name, text in sorted(content.items()))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def install(
    cluster: Cluster,
    bazaar: str,
    wanted: Mapping[str, Mapping[str, str]],
    ourselves: Callable[[], Path],
    progress: Progress,
) -> None:
    """Make machines edges, each of its files. Raises ClusterError with those that failed.

    ``ourselves`` gives the folder with Bazaar itself, where a shield asks for it.
    """

    async def bring(node: Node) -> None:
        from bazaar.host import remote

        progress(f"{cluster.name}: {node.name} becomes an edge")
        # Certificates' keys are among them: for nobody but root, here and there.
        with tempfile.TemporaryDirectory(prefix="bazaar-edge-") as temporary:
            for name, text in wanted[node.name].items():
                path = Path(temporary) / name
                path.parent.mkdir(exist_ok=True)
                path.touch(mode=0o600)
                path.write_text(text)
            async with remote.connect(node.machine) as there:
                await there.send(Path(temporary), _new(bazaar), root=True)
                before = await _shielded(there, bazaar)
                script = _script("edge.sh", bazaar)
                await there.run(script, root=True, timeout=_SECONDS, what="becoming an edge")
                after = wanted[node.name].get(_SHIELD, "")
                if before != after:
                    await _shield(there, before, after, ourselves())

    nodes = [node for node in cluster.members if node.name in wanted]
    asyncio.run(each(cluster, nodes, bring))


async def _shielded(there: Connection, bazaar: str) -> str:
    """What an edge's shield was put up with; "" where it has none."""
    path = shlex.quote(f"{EDGES}/{bazaar}/{_SHIELD}")
    return (await there.run(f"cat {path} 2>/dev/null || true", root=True)).output


async def _shield(there: Connection, before: str, after: str, ourselves: Path) -> None:
    """Put up another shield, or none, where the edge's address is."""
    program = await agent.ready(there, ourselves)
    address, _, options = (after or before).strip().partition(" ")
    lines = [
        f"dev=$(ip -4 -o address show to {shlex.quote(address)} | awk '{{print $2; exit}}')",
        f'{program} shield off "$dev" >/dev/null 2>&1 || true',
    ]
    if after:
        lines.append(f'{program} shield on "$dev" --detach {options}')
    await there.run("\n".join(lines), root=True, what="putting up its shield")


def remove(
    cluster: Cluster,
    bazaar: str,
    names: Sequence[str],
    ourselves: Callable[[], Path],
    progress: Progress,
) -> None:
    """Let machines be edges no more. Raises ClusterError with those that failed."""

    async def clear(node: Node) -> None:
        from bazaar.host import remote

        progress(f"{cluster.name}: {node.name} is no edge any more")
        async with remote.connect(node.machine) as there:
            if before := await _shielded(there, bazaar):
                await _shield(there, before, "", ourselves())
            script = _script("edge_removal.sh", bazaar)
            await there.run(script, root=True, what="ending its edge")

    nodes = [node for node in cluster.members if node.name in names]
    asyncio.run(each(cluster, nodes, clear))


def _new(bazaar: str) -> str:
    return f"{EDGES}/.{bazaar}.new"


def _script(file: str, bazaar: str) -> str:
    text = (Path(__file__).parent / file).read_text()
    filled = text.replace("@THERE@", f"{EDGES}/{bazaar}").replace("@NEW@", _new(bazaar))
    return head() + filled.replace("@BAZAAR@", bazaar).replace("@EDGES@", EDGES)
