"""Which cluster is meant and what it is to be: what was said before, what is said now.

The machines of a cluster are the user's, or local ones made for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from bazaar.cluster import store
from bazaar.cluster.description import Cluster, Node, control_plane_count
from bazaar.errors import MissingError, UsageError
from bazaar.model.machine import Machine
from bazaar.model.record import record, replace

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


def leaving(request: Request) -> list[str]:
    """The names of the machines that `apply` would take out of the cluster."""
    name = name_of(request)
    loaded = store.load(name)
    if loaded is None or lacking(request, name):
        return []
    staying = {node.name for node in resolved(request, name).nodes}
    return [node.name for node in loaded[0].nodes if node.name not in staying]


# ------------------------------------------------------------ which cluster


def name_of(request: Request) -> str:
    """The cluster's name: the one said, else by what its machines are, else the only one."""
    if request.name:
        return request.name
    if request.local is not None:
        return LOCAL_NAME
    if request.machines:
        return NAME
    return store.the_one(None)


def known(name: str) -> Cluster:
    """A cluster that was made. Raises MissingError."""
    loaded = store.load(name)
    if loaded is None:
        raise MissingError(f"there is no cluster {name}")
    return loaded[0]


def before(name: str) -> tuple[Node, ...]:
    """The machines the cluster has so far."""
    loaded = store.load(name)
    return loaded[0].nodes if loaded else ()


def same_version(request: Request, name: str) -> None:
    """Refuse another version than the cluster's: that is an upgrade's."""
    loaded = store.load(name)
    if loaded and request.version not in (None, loaded[0].version):
        raise UsageError(
            f"{name} is at {loaded[0].version}: another version is not applied at once",
            hint=f"bazaar cluster upgrade --name {name} --version {request.version}",
        )


def is_local(name: str) -> bool:
    """Whether a cluster's machines were made here for it."""
    loaded = store.load(name)
    return loaded is not None and loaded[1]


def version_of(request: Request) -> str:
    """The version asked for, else the newest there is."""
    from bazaar.cluster import binaries

    return request.version or binaries.VERSIONS[0]


def resolved(request: Request, name: str) -> Cluster:
    """The description: what was, with what is said anew."""
    loaded = store.load(name)
    past = loaded[0] if loaded else None
    if request.local is not None:
        machines = local_machines(name)[: request.local]
    elif request.machines:
        machines = [_machine(place, request) for place in request.machines]
    elif past is not None:
        machines = [node.machine for node in past.nodes]
    else:
        raise MissingError(f"there is no cluster {name}", hint="name its --machines, or --local N")
    count = request.control_planes or (
        len(past.control_planes) if past else control_plane_count(len(machines))
    )
    nodes = _nodes(machines, count, past)
    if past is not None:
        said = {"version": request.version, "network": request.network}
        changed = {key: value for key, value in said.items() if value is not None}
        return replace(past, nodes=nodes, **changed)
    return Cluster(name, nodes, version_of(request), network=request.network or "auto", gvisor=True)


def _nodes(machines: Sequence[Machine], count: int, past: Cluster | None) -> tuple[Node, ...]:
    """The nodes: those that were stay what they are, the others get shares nobody had."""
    known = {node.name: node for node in past.nodes} if past else {}
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


def local_file(name: str) -> Path:
    """Where the names of a cluster's local machines are kept."""
    return store.folder(name) / "machines.json"


def local_names(name: str) -> list[str]:
    """The local machines made for a cluster."""
    from bazaar.host import files

    return list(files.read_json(local_file(name)) or [])


def lacking(request: Request, name: str) -> int:
    """How many local machines have to be made."""
    if request.local is None:
        return 0
    if store.load(name) is not None and not is_local(name):
        raise UsageError(f"the machines of {name} are not local ones", hint="leave --local out")
    return max(0, request.local - len(local_machines(name)))


def local_machines(name: str) -> list[Machine]:
    from bazaar.host import machines

    names = local_names(name)
    there = {one.machine.name: one for one in machines.listing()}
    return [there[one].machine for one in names if one in there]
