"""The edges of a bazaar: which machines of its clusters they are, and what they balance over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from bazaar.cluster import deployed, store
from bazaar.cluster import edges as machines
from bazaar.cluster.deployed import Seen
from bazaar.cluster.description import Cluster
from bazaar.cluster.edges import Edge, Names
from bazaar.errors import BazaarError
from bazaar.model.change import Change
from bazaar.model.record import replace
from bazaar.model.site import Backend, Front, Health, Publish
from bazaar.site import configuration
from bazaar.spec.resolved import ResolvedBazaar, ResolvedService
from bazaar.up import cluster_agent, cluster_request, cluster_sites
from bazaar.up.cluster_access import client

Progress = Callable[[str], None]
KUBELET = 10250  # its own port
Ports = Mapping[str, Mapping[str, int]]  # by site and service
Files = dict[str, dict[str, str]]  # by machine and name


def published(wanted: ResolvedBazaar) -> list[ResolvedService]:
    """The services that edges let the world in to."""
    return [
        service
        for service in wanted.services
        if service.publish
        and service.port is not None
        and any(site in wanted.clusters for site in service.sites)
    ]


def files(wanted: ResolvedBazaar, ports: Ports) -> dict[str, Files]:
    """What each edge is to hold, by site: of those whose services have ports by now."""
    services = published(wanted)
    if not services:
        return {site: {} for site in ports}
    first = services[0].publish[0].port
    known = {site: cluster_request.known(wanted.clusters[site]) for site in ports}
    edges = {site: machines.machines(cluster) for site, cluster in known.items()}
    everywhere = [(node.outside, first) for site in edges for node in edges[site]]
    names = Names(wanted.domain, [one.name for one in services]) if wanted.domain else None
    certificates = {
        service.name: Path(service.certificate).read_text()
        for service in services
        if service.certificate
    }
    guarded = wanted.shield is not None and wanted.shield.mode != "off"
    found: dict[str, Files] = {}
    for site, nodes in edges.items():
        for node in nodes:
            fronts = [_front(wanted, service, site, node.ip, ports) for service in services]
            text = configuration.render(configuration.Settings(wanted.name), fronts)
            guard = _shield(wanted, known, ports) if guarded else ()
            edge = Edge(node.name, node.ip, text, certificates, guard)
            content = machines.files(wanted.name, edge, everywhere, names)
            found.setdefault(site, {})[node.name] = content
    return found


def _shield(wanted: ResolvedBazaar, known: Mapping[str, Cluster], ports: Ports) -> tuple[str, ...]:
    """The options of an edge's `bazaar shield on`: what it serves, and the clusters' own let in."""
    shield = wanted.shield
    assert shield is not None
    served = {place.port for service in published(wanted) for place in service.publish}
    served |= {port for each in ports.values() for port in each.values()}
    served |= {KUBELET, *(cluster.api_port for cluster in known.values())}
    served |= {node.machine.port for cluster in known.values() for node in cluster.nodes}
    nodes = [node for cluster in known.values() for node in cluster.nodes]
    inside = [address for node in nodes for address in (node.ip, node.outside)]
    inside += [cluster.pod_ranges[0] for cluster in known.values()]
    options = ["--rate", f"{shield.rate:g}/s", "--burst", str(shield.burst)]
    options += ["--block-for", f"{shield.block_seconds:g}s"]
    options += ["--dry-run"] if shield.mode == "dry-run" else []
    for network in dict.fromkeys([*shield.allow, *inside]):
        options += ["--allow", network]
    for port in [*(f"tcp/{port}" for port in sorted(served)), "tcp/53", "udp/53"]:
        options += ["--port", port]
    return tuple(options)


def _front(
    wanted: ResolvedBazaar, service: ResolvedService, site: str, address: str, ports: Ports
) -> Front:
    """A service at an edge of a site: over all machines that may have pods of it, its own first."""
    backends: list[Backend] = []
    for one in service.sites:
        port = ports.get(one, {}).get(service.name)
        if port is None:
            continue
        cluster = cluster_request.known(wanted.clusters[one])
        backends += [
            Backend(
                f"{service.name}/{one}/{node.name}",
                one,
                node.ip if one == site else node.outside,
                port,
            )
            for node in cluster.workers or cluster.members
        ]
    # A machine without pods of it does not answer: without a check it would be asked all the same.
    health = Health("tcp") if service.health.kind == "none" else service.health
    first, *more = service.publish
    return Front(
        service=service.name,
        address=address,
        port=first.port,
        mode=service.mode,
        health=health,
        backends=tuple(backends),
        publish=tuple(Publish(address, place.port) for place in more),
        certificate=Path(f"certificates/{service.name}.pem") if service.certificate else None,
        certificate_digest=service.certificate_digest,
        nearest=site,
    )


def plan(wanted: ResolvedBazaar, lost: Collection[str]) -> list[Change]:
    """Which machines become edges, change as such, or are none any more; not of ``lost`` sites."""
    there = {site: name for site, name in wanted.clusters.items() if name in store.names()}
    changes = [
        Change("create", "edge", site, f"of up to {machines.COUNT} of its machines")
        for site in wanted.clusters
        if site not in there and published(wanted)
    ]
    clients = {site: client(name) for site, name in there.items() if site not in lost}
    ports = {site: deployed.ports(one, wanted.name) for site, one in clients.items()}
    kept = cluster_sites.stored(wanted.name)
    ports |= {site: kept[site].ports for site in lost if site in kept}
    for site, content in files(wanted, ports).items():
        if site in lost:
            continue
        known = deployed.edges(clients[site], wanted.name)
        for node, each in content.items():
            before = known.pop(node, None)
            if before != machines.digest(each):
                action = "create" if before is None else "update"
                changes.append(Change(action, "edge", f"{site}/{node}"))
        changes += [Change("destroy", "edge", f"{site}/{node}") for node in known]
    return changes


def apply(
    wanted: ResolvedBazaar, seen: Mapping[str, Seen], lost: Collection[str], progress: Progress
) -> tuple[dict[str, Seen], list[str]]:
    """Make edges as they are to be; what is known of the clusters then, and what failed."""
    found = dict(seen)
    problems: list[str] = []
    for site, content in files(wanted, {site: one.ports for site, one in seen.items()}).items():
        if site in lost:
            continue
        try:
            found[site] = replace(seen[site], edges=_apply(wanted, site, content, progress))
        except BazaarError as error:
            problems.append(f"edges of {site}: {error.message}")
    return found, problems


def _apply(
    wanted: ResolvedBazaar, site: str, content: Files, progress: Progress
) -> tuple[str, ...]:
    """Make the edges of one site; their addresses."""
    cluster = cluster_request.known(wanted.clusters[site])
    there = client(cluster.name)
    known = deployed.edges(there, wanted.name)
    digests = {node: machines.digest(each) for node, each in content.items()}
    changed = {node: content[node] for node in content if known.get(node) != digests[node]}
    if changed:
        machines.install(cluster, wanted.name, changed, cluster_agent.folder, progress)
    if gone := [node for node in known if node not in content]:
        machines.remove(cluster, wanted.name, gone, cluster_agent.folder, progress)
    addresses = tuple(node.outside for node in cluster.members if node.name in content)
    if known or content:
        deployed.note_edges(there, wanted.name, digests, addresses)
    return addresses


def remove(bazaar: str, cluster: str, progress: Progress) -> None:
    """Let no machine of a cluster be an edge of a bazaar any more."""
    known = cluster_request.known(cluster)
    if there := deployed.edges(client(cluster), bazaar):
        machines.remove(known, bazaar, list(there), cluster_agent.folder, progress)
