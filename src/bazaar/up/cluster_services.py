"""The services of a bazaar on the sites that are clusters: what is to change there, and doing it.

What a service is there is `cluster/workloads.py`'s; who balances over it is the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bazaar.cluster import deployed, pki, store, workloads
from bazaar.cluster.client import Client
from bazaar.cluster.deployed import Seen
from bazaar.cluster.workloads import Workload
from bazaar.errors import BazaarError, ClusterError, EngineError, MissingError
from bazaar.model.change import Change
from bazaar.spec.resolved import ResolvedBazaar, ResolvedService
from bazaar.up import (
    cluster_access,
    cluster_images,
    cluster_request,
    cluster_sites,
    clusters,
    edges,
)
from bazaar.up.cluster_access import client
from bazaar.up.cluster_request import Request
from bazaar.up.plan import Planned

if TYPE_CHECKING:
    from bazaar.model.container import Image

Progress = Callable[[str], None]
Secrets = Mapping[str, Mapping[str, str]]


def workload(bazaar: str, service: ResolvedService, secrets: Mapping[str, str]) -> Workload:
    """A service as a cluster is to run it; its image by the name that the description has."""
    return Workload(
        bazaar=bazaar,
        name=service.name,
        image=service.image,
        replicas=service.replicas,
        own_kernel=service.kernel == "own",
        entrypoint=service.entrypoint or (),
        command=service.command,
        port=service.port,
        health=service.health,
        environment=service.environment,
        secrets=tuple(sorted(secrets.items())),
        claims=tuple(
            workloads.Claim(volume.name, volume.target, volume.read_only)
            for volume in service.volumes
            if volume.name
        ),
        files=tuple((file.target, _text(file.content, file.source)) for file in service.files),
        limits=service.limits,
        working_directory=service.working_directory or "",
        user=service.user or "",
        published=bool(service.publish),
        alone=service.stateful or any(not volume.read_only for volume in service.volumes),
    )


def _text(content: str | None, source: str | None) -> str:
    return Path(source or "").read_text() if content is None else content


def on(wanted: ResolvedBazaar, site: str) -> list[ResolvedService]:
    """The services of a site."""
    return [service for service in wanted.services if site in service.sites]


def plan(
    wanted: ResolvedBazaar,
    applied: ResolvedBazaar | None,
    secrets: Secrets,
    requests: Sequence[Request],
    progress: Progress,
) -> Planned:
    """What has to change of clusters and on them; those that are not there yet get all of it."""
    changes: list[Change] = []
    problems: list[str] = []
    lost: dict[str, str] = {}
    sites = {cluster: site for site, cluster in wanted.clusters.items()}
    for cluster, found in clusters.plan_all(requests, progress).items():
        if isinstance(found, BazaarError):
            problems.append(found.message)
        else:
            changes += [replace(one, name=f"{sites[cluster]}/{one.name}") for one in found[1]]
    with ThreadPoolExecutor(max_workers=8) as pool:
        begun = {site: pool.submit(_plan, wanted, site, secrets) for site in wanted.clusters}
        for site, work in begun.items():
            try:
                changes += work.result()
            except ClusterError as error:
                lost[site] = error.message
    changes += edges.plan(wanted, lost)
    for site, cluster in _left(wanted, applied).items():
        changes.append(Change("destroy", "site", site, f"its services leave {cluster}"))
    return Planned(changes, lost, tuple(problems))


def _left(wanted: ResolvedBazaar, applied: ResolvedBazaar | None) -> dict[str, str]:
    """The clusters that were sites of the bazaar and are not any more, by site."""
    before = applied.clusters if applied else {}
    return {site: name for site, name in before.items() if site not in wanted.clusters}


def _plan(wanted: ResolvedBazaar, site: str, secrets: Secrets) -> list[Change]:
    cluster = wanted.clusters[site]
    found = deployed.Found({}, frozenset())
    there: Client | None = None
    if cluster in store.names():
        there = client(cluster)
        found = deployed.look(there, wanted.name)
    changes: list[Change] = []
    for service in on(wanted, site):
        name = f"{service.name}/{site}"
        detail = f"{service.replicas}, {service.image}"
        if there is None or service.name not in found.objects:
            changes.append(Change("create", "service", name, detail))
        elif why := deployed.difference(there, _workload(wanted, service, secrets), found):
            changes.append(Change("update", "service", name, detail, why))
    names = [service.name for service in on(wanted, site)]
    gone = [name for name in found.objects if name not in names]
    return [*changes, *(Change("destroy", "service", f"{name}/{site}") for name in sorted(gone))]


def _workload(wanted: ResolvedBazaar, service: ResolvedService, secrets: Secrets) -> Workload:
    return workload(wanted.name, service, secrets.get(service.name, {}))


def apply(
    wanted: ResolvedBazaar,
    secrets: Secrets,
    requests: Sequence[Request],
    lost: Mapping[str, str],
    images: Mapping[str, Image],
    progress: Progress,
) -> tuple[dict[str, Any], list[str]]:
    """Make the clusters, and bring services to them: what is to be known of them, what failed.

    ``images`` are those of this machine, by reference. A site that fails stops no other; one
    that is ``lost``, for the reason given, is left as it is where its cluster cannot be mended.
    """
    # Of one that cannot be reached now, what is known of it stays.
    kept = cluster_sites.stored(wanted.name)
    known = {site: seen for site, seen in kept.items() if site in wanted.clusters}
    problems: list[str] = []
    made = clusters.apply_all(requests, progress)
    problems += [str(one) for one in made.values() if isinstance(one, BazaarError)]
    mended = [name for name, one in made.items() if not isinstance(one, BazaarError)]
    lost = {site: why for site, why in lost.items() if wanted.clusters[site] not in mended}
    problems += lost.values()
    with ThreadPoolExecutor(max_workers=8) as pool:
        begun = {
            site: pool.submit(_apply, wanted, site, secrets, images, progress)
            for site, cluster in wanted.clusters.items()
            if site not in lost and cluster in store.names()
        }
        for site, work in begun.items():
            try:
                seen, unhealthy = work.result()
            except BazaarError as error:
                problems.append(f"{site}: {error}")
                continue
            known[site] = seen
            problems += [f"{name}: {why}" for name, why in unhealthy.items()]
    known, failed = edges.apply(wanted, known, lost, progress)
    problems += failed
    return {site: cluster_sites.to_json(seen) for site, seen in known.items()}, problems


def _apply(
    wanted: ResolvedBazaar,
    site: str,
    secrets: Secrets,
    images: Mapping[str, Image],
    progress: Progress,
) -> tuple[Seen, dict[str, str]]:
    cluster = wanted.clusters[site]
    services = on(wanted, site)
    used = list(dict.fromkeys(service.image for service in services))
    packed = cluster_images.pack({one: images[one] for one in used}, progress)
    names = {reference: one.name for reference, one in packed.items()}
    failed: dict[str, str] = {}
    try:
        cluster_images.carry(cluster, packed, progress)
    except ClusterError as error:  # of some machines: the others have them
        failed[f"images/{site}"] = error.message
    there = client(cluster)
    user = f"bazaar:{wanted.name}"
    deployed.prepare(there, wanted.name, user)
    found = deployed.look(there, wanted.name)

    def bring(service: ResolvedService) -> str | None:
        one = _workload(wanted, service, secrets)
        made = workloads.Made(names[service.image], _user(service, images[service.image]))
        # Of its own: the one connection of a client is used by one after the other.
        return deployed.bring(client(cluster), one, made, found, progress)

    with ThreadPoolExecutor(max_workers=8) as pool:
        for service, why in zip(services, pool.map(bring, services), strict=True):
            if why is not None:
                failed[f"{service.name}/{site}"] = why
    return _seen(cluster, wanted.name, there, user), failed


def _seen(cluster: str, bazaar: str, there: Client, user: str) -> Seen:
    known = cluster_request.known(cluster)
    keys = store.keys(known, store=True)
    pair = pki.issued(pki.Request("supervisor", "ca", user), keys)
    hosts = {node.name: node.outside for node in known.members}
    return Seen(cluster_access.access(cluster, keys, pair), hosts, deployed.ports(there, bazaar))


def _user(service: ResolvedService, image: Image) -> tuple[int, int] | None:
    """Who the service runs as, by number: the API takes no names."""
    from bazaar.run import rootfs

    if service.user is None:
        return None
    problem: BazaarError | None = None
    for layer in reversed(image.layers):
        try:
            found = rootfs.user(layer, service.user)
        except EngineError as error:
            problem = error
        else:
            return found.uid, found.gid
    raise MissingError(f"{service.name}: {problem.message if problem else 'no such user'}")


def clear(wanted: ResolvedBazaar, applied: ResolvedBazaar | None, progress: Progress) -> None:
    """Take away, once nothing leads there any more, what is not wanted on clusters any more."""
    for site, cluster in wanted.clusters.items():
        there = client(cluster)
        found = deployed.look(there, wanted.name)
        names = [service.name for service in on(wanted, site)]
        for name in found.objects:
            if name not in names:
                deployed.drop(there, found, name)
    for cluster in _left(wanted, applied).values():
        if cluster in store.names():
            edges.remove(wanted.name, cluster, progress)
            deployed.remove(client(cluster), wanted.name, volumes=False, progress=progress)


def remove(
    bazaar: str, names: Sequence[str], *, volumes: bool, forget: bool, progress: Progress
) -> list[str]:
    """Take a bazaar out of its clusters; the volumes that are kept there, as CLUSTER/NAME.

    With ``forget`` one that does not answer is left as it is.
    """
    kept: list[str] = []
    for cluster in names:
        if cluster not in store.names():
            continue
        try:
            edges.remove(bazaar, cluster, progress)
            left = deployed.remove(client(cluster), bazaar, volumes=volumes, progress=progress)
        except ClusterError as error:
            if forget:
                continue
            hint = f"run the same again when it does; --forget leaves {cluster} as it is"
            raise ClusterError(error.message, hint=hint) from error
        kept += [f"{cluster}/{name}" for name in sorted(left)]
    return kept
