"""Clusters from one end to the other: machines, programs, keys, plan and phases.

The layers do one thing each and do not know one another; here they meet.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from bazaar.cluster import store
from bazaar.cluster.description import Cluster, Node, control_plane_count
from bazaar.errors import MissingError, UsageError
from bazaar.host import paths
from bazaar.model.change import Change
from bazaar.model.machine import Machine
from bazaar.model.record import field, record, replace

if TYPE_CHECKING:
    from bazaar.cluster.parts import Programs
    from bazaar.cluster.plan import Plan

Progress = Callable[[str], None]
LOCAL_NAME = "local"
NAME = "kubernetes"  # kubeadm's own default
_PLACE = re.compile(
    r"(?:(?P<name>[^=@:]+)=)?(?:(?P<user>[^@=:]+)@)?(?P<host>[^@=:]+)(?::(?P<port>\d{1,5}))?"
)


@record
class Request:
    """Which cluster is meant, and what of it is said anew; None: as it was, or the default."""

    name: str | None = None
    machines: Sequence[str] = ()  # [NAME=][USER@]ADDRESS[:PORT]
    local: int | None = None  # so many machines made here
    control_planes: int | None = None
    version: str | None = None
    key: str | None = None
    known_hosts: str | None = None
    network: str | None = None


@record
class Outcome:
    """What applying a plan came to."""

    cluster: Cluster
    changes: list[Change]
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)


def plan(request: Request, progress: Progress) -> tuple[Cluster | None, list[Change]]:
    """What `apply` would change; nothing is. The cluster is None while it has no machines."""
    name = _name(request)
    lacking = _lacking(request, name)
    if lacking:
        made = [Change("create", "machine", f"machine {n + 1}", "local") for n in range(lacking)]
        return None, [*made, Change("create", "cluster", name, _version(request))]
    cluster = _resolved(request, name)
    planned = asyncio.run(_planned(cluster, progress))
    return planned.cluster, _changes(planned)


def apply(request: Request, progress: Progress) -> Outcome:
    """Make the cluster as it is to be. Raises ClusterError, SpecError and the layers' own."""
    import time

    name = _name(request)
    began = time.monotonic()
    with store.lock(name, "cluster apply"):
        lacking = _lacking(request, name)
        if lacking:
            _make_machines(name, lacking, request, progress)
        cluster = _resolved(request, name)
        local = request.local is not None or _is_local(name)
        outcome = asyncio.run(_applied(cluster, local, progress))
    return replace(outcome, seconds=time.monotonic() - began)


def kubeconfig(name: str | None) -> str:
    """An administrator's kubeconfig of a cluster."""
    from yaml import safe_dump

    from bazaar.cluster.parts import kubeconfig_of

    cluster = _known(store.the_one(name))
    keys = store.keys(cluster, store=True)
    document = kubeconfig_of(
        cluster.name,
        cluster.server,
        "kubernetes-admin",
        keys["authorities"]["ca"]["certificate"],
        keys["pairs"]["/admin"],
    )
    return safe_dump(document, sort_keys=False)


def reset(name: str | None, progress: Progress) -> str:
    """Take a cluster away from its machines; local machines of its own go altogether."""
    from bazaar.cluster import removal

    chosen = store.the_one(name)
    with store.lock(chosen, "cluster reset"):
        loaded = store.load(chosen)
        if loaded is None:
            raise MissingError(f"there is no cluster {chosen}")
        cluster, local = loaded
        if local:
            _destroy_machines(cluster, progress)
        else:
            asyncio.run(removal.reset(cluster, progress))
        store.forget(chosen)
    return chosen


def chosen(name: str | None, local: int | None) -> str:
    """The name of the cluster meant. Raises UsageError, MissingError."""
    return store.the_one(name or (LOCAL_NAME if local is not None else None))


def programs(version: str, progress: Progress) -> tuple[Programs, Programs]:
    """Kubernetes' programs of a version, and what machines are given besides."""
    from bazaar.cluster import binaries, extras
    from bazaar.cluster.parts import Programs
    from bazaar.run import engines

    found = binaries.get(version, progress)
    folder = found.folder.parent
    try:
        runsc: Path | None = engines.ensure("gvisor", progress)
    except MissingError:
        runsc = None
    kubernetes = Programs(version, str(folder), extras.of(folder))
    return kubernetes, extras.make(found.folder / "pause", runsc)


async def _planned(cluster: Cluster, progress: Progress) -> Plan:
    from bazaar.cluster.apply import open_session

    ours, besides = programs(cluster.version, progress)
    async with open_session(cluster, ours, besides, progress) as session:
        await session.look()
        return session.plan(keep=False)


async def _applied(cluster: Cluster, local: bool, progress: Progress) -> Outcome:
    from bazaar.cluster.apply import open_session

    ours, besides = programs(cluster.version, progress)
    async with open_session(cluster, ours, besides, progress) as session:
        await session.look()
        store.save(session.cluster, local=local)
        planned = session.plan(keep=True)
        phases = {} if planned.empty else await session.apply(planned)
    return Outcome(session.cluster, _changes(planned), 0.0, phases)


def _changes(planned: Plan) -> list[Change]:
    from bazaar.cluster.plan import changes

    return changes(planned)


# ------------------------------------------------------------ which cluster


def _name(request: Request) -> str:
    if request.name:
        return request.name
    if request.local is not None:
        return LOCAL_NAME
    if request.machines:
        return NAME
    return store.the_one(None)


def _known(name: str) -> Cluster:
    loaded = store.load(name)
    if loaded is None:
        raise MissingError(f"there is no cluster {name}")
    return loaded[0]


def _is_local(name: str) -> bool:
    loaded = store.load(name)
    return loaded is not None and loaded[1]


def _version(request: Request) -> str:
    from bazaar.cluster import binaries

    return request.version or binaries.VERSIONS[0]


def _resolved(request: Request, name: str) -> Cluster:
    """The description: what was, with what is said anew."""
    loaded = store.load(name)
    before = loaded[0] if loaded else None
    if request.local is not None:
        machines = _local_machines(name)
    elif request.machines:
        machines = [_machine(place, request) for place in request.machines]
    elif before is not None:
        machines = [node.machine for node in before.nodes]
    else:
        raise MissingError(f"there is no cluster {name}", hint="name its --machines, or --local N")
    count = request.control_planes or (
        len(before.control_planes) if before else control_plane_count(len(machines))
    )
    nodes = _nodes(machines, count, before)
    if before is not None:
        said = {"version": request.version, "network": request.network}
        changed = {key: value for key, value in said.items() if value is not None}
        return replace(before, nodes=nodes, **changed)
    return Cluster(name, nodes, _version(request), network=request.network or "auto", gvisor=True)


def _nodes(machines: Sequence[Machine], count: int, before: Cluster | None) -> tuple[Node, ...]:
    """The nodes: those that were stay what they are, the others get shares nobody had."""
    known = {node.name: node for node in before.nodes} if before else {}
    used = {node.index for node in known.values()}
    free = (index for index in range(1 << 16) if index not in used)
    planes = sum(known[one.name].control_plane for one in machines if one.name in known)
    found: list[Node] = []
    for machine in machines:
        if machine.name in known:
            found.append(replace(known[machine.name], machine=machine))
            continue
        found.append(Node(machine.name, machine, planes < count, next(free)))
        planes += found[-1].control_plane
    return tuple(found)


def _machine(place: str, request: Request) -> Machine:
    match = _PLACE.fullmatch(place.strip())
    if match is None:
        raise UsageError(
            f"{place!r} names no machine", hint="[NAME=][USER@]ADDRESS[:PORT], as 10.0.0.1"
        )
    host = match["host"]
    return Machine(
        match["name"] or _node_name(host),
        host,
        user=match["user"] or "root",
        port=int(match["port"] or 22),
        key=request.key or "",
        known_hosts=request.known_hosts or "",
    )


def _node_name(host: str) -> str:
    """A node's name by where it is: an address is no name in Kubernetes."""
    try:
        return f"ip-{str(IPv4Address(host)).replace('.', '-')}"
    except ValueError:
        return host.partition(".")[0].lower()


# ------------------------------------------------------------ local machines


def _local_file(name: str) -> Path:
    return store.folder(name) / "machines.json"


def _local_names(name: str) -> list[str]:
    from bazaar.host import files

    return list(files.read_json(_local_file(name)) or [])


def _lacking(request: Request, name: str) -> int:
    """How many local machines have to be made."""
    if request.local is None:
        return 0
    if store.load(name) is not None and not _is_local(name):
        raise UsageError(f"the machines of {name} are not local ones", hint="leave --local out")
    return max(0, request.local - len(_local_machines(name)))


def _local_machines(name: str) -> list[Machine]:
    from bazaar.host import machines

    names = _local_names(name)
    there = {one.machine.name: one for one in machines.listing()}
    return [there[one].machine for one in names if one in there]


def _make_machines(name: str, count: int, request: Request, progress: Progress) -> None:
    from bazaar.host import files, machines

    shown = paths.cache() / "cluster"
    # Made before the machines, which see it: what comes into it later is there at once.
    shown.mkdir(parents=True, exist_ok=True)
    programs(_version(request), progress)
    made = machines.create(
        count, progress, packages=("containerd", "runc", "haproxy"), binds={shown: "/opt/bazaar"}
    )
    names = [*_local_names(name), *(one.machine.name for one in made)]
    files.write_json(_local_file(name), names)


def _destroy_machines(cluster: Cluster, progress: Progress) -> None:
    from bazaar.host import machines

    there = {one.machine.name for one in machines.listing()}
    names = [one for one in _local_names(cluster.name) if one in there]
    if names:
        machines.destroy(names, progress)
