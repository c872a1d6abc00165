"""Which cluster is meant and what it is to be: what was said before, what is said now.

The machines of a cluster are the user's, or local ones made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bazaar.cluster import store
from bazaar.cluster.description import Cluster, Node, control_plane_count
from bazaar.errors import MissingError, UsageError
from bazaar.model.machine import Machine
from bazaar.model.record import field, record, replace
from bazaar.spec import cluster_values

Progress = Callable[[str], None]
LOCAL_NAME = "local"
NAME = "kubernetes"  # kubeadm's own default


@record
class Wish:
    """A machine of a description, and what it is to be as a node."""

    machine: Machine
    role: str = ""  # control-plane | worker | etcd; "": whichever is needed
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()
    address: str = ""


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
    wishes: Sequence[Wish] = ()  # the machines of a description
    options: Mapping[str, Any] | None = None  # all else that a description says: Cluster's fields


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
    loaded = store.load(store.the_one(name))
    assert loaded is not None  # it was among those that are known
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
    elif request.wishes:
        machines = [wish.machine for wish in request.wishes]
    elif request.machines:
        machines = [_machine(place, request) for place in request.machines]
    elif past is not None:
        machines = [node.machine for node in past.nodes]
    else:
        raise MissingError(f"there is no cluster {name}", hint="name its --machines, or --local N")
    count = request.control_planes or (
        len(past.control_planes) if past else control_plane_count(len(machines))
    )
    nodes = _nodes(machines, count, past, {wish.machine.name: wish for wish in request.wishes})
    if request.options is not None:
        version = request.version or (past.version if past else version_of(request))
        cluster = Cluster(name, nodes, version, **request.options)
        _same(past, cluster)
        return cluster
    if past is not None:
        said = {"version": request.version, "network": request.network}
        changed = {key: value for key, value in said.items() if value is not None}
        return replace(past, nodes=nodes, **changed)
    return Cluster(name, nodes, version_of(request), network=request.network or "auto", gvisor=True)


def _nodes(
    machines: Sequence[Machine], count: int, past: Cluster | None, wishes: Mapping[str, Wish]
) -> tuple[Node, ...]:
    """The nodes: those that were stay what they are, the others get shares nobody had."""
    known = {node.name: node for node in past.nodes} if past else {}
    used = {node.index for node in known.values()}
    free = (index for index in range(1 << 16) if index not in used)
    said = {name: wish.role for name, wish in wishes.items() if wish.role}
    planes = sum(known[one.name].control_plane for one in machines if one.name in known)
    planes += sum(role == "control-plane" for name, role in said.items() if name not in known)
    if "control-plane" in said.values():
        count = planes  # those that are named, and no more
    found: list[Node] = []
    for machine in machines:
        wish = wishes.get(machine.name)
        if machine.name in known:
            node = replace(known[machine.name], machine=machine)
            _same_role(node, said.get(machine.name, ""))
        else:
            role = said.get(machine.name, "")
            plane = role == "control-plane" or (not role and planes < count)
            planes += plane and not role
            node = Node(machine.name, machine, plane, next(free), etcd=role == "etcd")
        if wish is not None:
            node = replace(node, labels=wish.labels, taints=tuple(wish.taints))
            node = replace(node, address=wish.address or node.address)
        found.append(node)
    return tuple(found)


_FIXED = ("service_range", "pod_range", "domain")


def _same(past: Cluster | None, cluster: Cluster) -> None:
    """Refuse what a cluster that lives does not survive."""
    for name in _FIXED if past else ():
        before, after = getattr(past, name), getattr(cluster, name)
        if before != after:
            raise UsageError(
                f"{cluster.name}: its {name.replace('_', ' ')} is {before} and does not become "
                f"{after}: what runs there has addresses and names of it",
                hint=f"say {before} again, or make another cluster",
            )


def _same_role(node: Node, wanted: str) -> None:
    role = "etcd" if node.etcd else "control-plane" if node.control_plane else "worker"
    if wanted and wanted != role:
        raise UsageError(
            f"{node.name} is a machine of the role {role}: it does not become {wanted}",
            hint="take it out of the description, apply, and put it in again",
        )


def _machine(place: str, request: Request) -> Machine:
    try:
        found = cluster_values.place(place)
    except ValueError as error:
        raise UsageError(str(error)) from None
    host = found["address"]
    return Machine(
        found.get("name") or cluster_values.node_name(host),
        host,
        user=found.get("user") or "root",
        port=found.get("port") or 22,
        key=request.key or "",
        known_hosts=request.known_hosts or "",
    )


# ------------------------------------------------------------ local machines


def local_file(name: str) -> Path:
    """Where the names of a cluster's local machines are kept."""
    return store.folder(name) / "machines.json"


def local_names(name: str) -> list[str]:
    """The local machines made for a cluster, those too that were made and not noted any more."""
    from bazaar.host import files, machines

    noted = list(files.read_json(local_file(name)) or [])
    return [*noted, *(one for one in machines.owned(name) if one not in noted)]


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
