"""What a cluster is to be: its machines, their parts, its ranges and versions.

Everything has a default; a list of machines is enough. Names are Kubernetes' own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, cast

from bazaar.errors import SpecError
from bazaar.model.machine import Machine
from bazaar.model.problem import Problem
from bazaar.model.record import field, record

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
NODE_BITS_6 = 64  # the same of the range of IPv6, where there is one
NODE_BITS = 24  # each node's share of the pod range, as a prefix length
CONTROL_PLANE_TAINT = "node-role.kubernetes.io/control-plane:NoSchedule"
HARDENING = ("none", "cis")
NETWORKS = ("auto", "routes", "vxlan", "wireguard", "none")
SERVICE_RANGE = "10.96.0.0/16"
POD_RANGE = "10.244.0.0/16"


@record
class Node:
    """One machine of a cluster, by the name it has as a node."""

    name: str
    machine: Machine
    control_plane: bool
    index: int  # which share of the pod range is its own; never given to another
    address: str = ""  # where the others reach it; "": where we do
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()  # key=value:Effect
    address6: str = ""  # its address of IPv6, where the cluster has both
    etcd: bool = False  # holds etcd and is no node: where it is separate

    @property
    def ip(self) -> str:
        return self.address or self.machine.address

    @property
    def outside(self) -> str:
        """Where those reach it who are of no machine of the cluster: a name is not resolved."""
        try:
            return str(IPv4Address(self.machine.address))
        except ValueError:
            return self.ip

    @property
    def bears(self) -> bool:
        """Whether the cluster rests on it: a worker can be done without for a while."""
        return self.control_plane or self.etcd


@record
class Cluster:
    """One cluster, with nothing left open but what the machines themselves tell."""

    name: str
    nodes: tuple[Node, ...]
    version: str
    service_range: str = SERVICE_RANGE
    pod_range: str = POD_RANGE
    domain: str = "cluster.local"
    api_port: int = 6443
    endpoint: str = ""  # the address clients use; "": the first control plane's
    network: str = "auto"
    gvisor: bool = True
    audit: bool = True
    extra_args: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by component
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    registry_mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by registry
    proxy: Mapping[str, str] = field(default_factory=dict)  # http, https, no_proxy
    manifests: Mapping[str, str] = field(default_factory=dict)  # further ones: file, content
    hardening: str = "none"

    @property
    def control_planes(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.control_plane)

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if not node.control_plane and not node.etcd)

    @property
    def members(self) -> tuple[Node, ...]:
        """The machines that are nodes of Kubernetes: all but those for etcd alone."""
        return tuple(node for node in self.nodes if not node.etcd)

    @property
    def stores(self) -> tuple[Node, ...]:
        """The machines that hold etcd: those for it alone, else the control planes."""
        return tuple(node for node in self.nodes if node.etcd) or self.control_planes

    @property
    def service_ranges(self) -> tuple[str, ...]:
        """The Services' range of IPv4, and that of IPv6 where there are both."""
        return tuple(self.service_range.split(","))

    @property
    def pod_ranges(self) -> tuple[str, ...]:
        """The pods' range of IPv4, and that of IPv6 where there are both."""
        return tuple(self.pod_range.split(","))

    @property
    def dual(self) -> bool:
        """Whether pods and Services have addresses of IPv6, too."""
        return len(self.pod_ranges) > 1

    @property
    def server(self) -> str:
        """The URL that clients outside use."""
        return f"https://{self.endpoint or self.control_planes[0].ip}:{self.api_port}"

    @property
    def dns_ip(self) -> str:
        """The address of the DNS Service: the tenth, as kubeadm has it."""
        return str(IPv4Network(self.service_ranges[0])[10])

    @property
    def api_ip(self) -> str:
        """The address of the Service `kubernetes`: always the first."""
        return str(IPv4Network(self.service_ranges[0])[1])

    def pod_range_of(self, node: Node) -> str:
        """A node's share of the pod range."""
        whole = IPv4Network(self.pod_ranges[0])
        size = 1 << (32 - NODE_BITS)
        return f"{IPv4Address(int(whole.network_address) + node.index * size)}/{NODE_BITS}"

    def pod_ranges_of(self, node: Node) -> tuple[str, ...]:
        """A node's shares of all the pods' ranges."""
        if not self.dual:
            return (self.pod_range_of(node),)
        whole = IPv6Network(self.pod_ranges[1])
        start = int(whole.network_address) + (node.index << (128 - NODE_BITS_6))
        return self.pod_range_of(node), f"{IPv6Address(start)}/{NODE_BITS_6}"

    def taints_of(self, node: Node) -> tuple[str, ...]:
        """Its own, and the control planes' where somebody else can do the work."""
        own = (CONTROL_PLANE_TAINT,) if node.control_plane and self.workers else ()
        return (*own, *node.taints)

    def labels_of(self, node: Node) -> dict[str, str]:
        """Its own, and what says that it is a control plane."""
        own = {"node-role.kubernetes.io/control-plane": ""} if node.control_plane else {}
        return {**own, **node.labels}


def control_plane_count(machines: int) -> int:
    """How many of so many machines are control planes where nobody says: an odd number."""
    return 3 if machines >= 3 else 1


def check(cluster: Cluster) -> None:
    """Refuse what cannot become a cluster. Raises SpecError with all that is wrong."""
    found: list[str] = []
    if not NAME.fullmatch(cluster.name):
        found.append(f"{cluster.name!r} is no name: small letters, digits and -, at most 42")
    found += _nodes(cluster)
    found += _ranges(cluster)
    found += _manifests(cluster)
    if cluster.hardening not in HARDENING:
        found.append(f"hardening {cluster.hardening!r}: one of {', '.join(HARDENING)}")
    if cluster.hardening == "cis" and not cluster.audit:
        found.append("hardening cis needs audit: what was asked of the API is kept")
    if cluster.network not in NETWORKS:
        found.append(f"network {cluster.network!r}: one of {', '.join(NETWORKS)}")
    if found:
        raise SpecError([Problem(text, path=f"cluster {cluster.name}") for text in found])


def _nodes(cluster: Cluster) -> list[str]:
    found: list[str] = []
    stores = len(cluster.stores)
    if stores not in (1, 3, 5):
        found.append(f"{stores} machines for etcd: 1, 3 or 5, so that a majority is clear")
    count = len(cluster.control_planes)
    if count not in (1, 3, 5):
        found.append(f"{count} control planes: 1, 3 or 5, so that a majority can be lost by none")
    for what, values in (
        ("name", [node.name for node in cluster.nodes]),
        ("address", [node.ip for node in cluster.nodes]),
    ):
        for value in sorted({value for value in values if values.count(value) > 1}):
            found.append(f"two machines have the {what} {value}")
    for node in cluster.nodes:
        if not NAME.fullmatch(node.name):
            found.append(f"{node.name!r} is no node's name: small letters, digits and -")
    return found


def objects_of(text: str) -> list[Any]:
    """The objects of a YAML text, those of its Lists too. Raises YAMLError, ValueError."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    found: list[Any] = []
    for one in yaml.load_all(text, loader):
        whole = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        listed = whole.get("items") if whole.get("kind") == "List" else None
        found += cast("list[Any]", listed) if isinstance(listed, list) else [one]
    return [one for one in found if one is not None]


def _manifests(cluster: Cluster) -> list[str]:
    """Each is YAML of objects with a kind and a name: else the API refuses all of them."""
    from yaml import YAMLError

    found: list[str] = []
    for path, text in cluster.manifests.items():
        try:
            objects = objects_of(text)
        except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
            found.append(f"{path} is no YAML: {str(error).splitlines()[0]}")
            continue
        found += [
            f"{path}: object {number} needs apiVersion, kind and metadata.name"
            for number, one in enumerate(objects, 1)
            if not _is_object(one)
        ]
    return found


def _ranges_6(cluster: Cluster) -> list[str]:
    """The ranges of IPv6: both or none, apart, and with room for every node."""
    count = (len(cluster.service_ranges), len(cluster.pod_ranges))
    if count == (1, 1):
        return []
    if count != (2, 2):
        return ["dual stack: the ranges of pods and of Services each have one of IPv6, or none"]
    try:
        services, pods = (IPv6Network(r[1]) for r in (cluster.service_ranges, cluster.pod_ranges))
    except ValueError as error:
        return [f"dual stack: {error}"]
    found: list[str] = []
    for node in cluster.nodes:
        try:
            IPv6Address(node.address6 or "::")
        except ValueError:
            found.append(f"{node.name}: {node.address6!r}, as it says, is no IPv6 address")
    if services.overlaps(pods):
        found.append(f"the ranges {services} and {pods} overlap")
    if services.prefixlen < 108:  # the API server's own limit
        found.append(f"service range {services}: at most a /108")
    room = 1 << max(0, NODE_BITS_6 - pods.prefixlen)
    if pods.prefixlen > NODE_BITS_6 or any(node.index >= room for node in cluster.nodes):
        found.append(f"pod range {pods}: no room for a /{NODE_BITS_6} for each node")
    return found


def _is_object(one: Any) -> bool:
    """What the API takes; all words that get into scripts are looked at."""
    try:
        named = (one["metadata"]["name"], one["metadata"].get("namespace") or "default")
        return bool(
            isinstance(one["metadata"].get("labels") or {}, Mapping)
            and re.fullmatch(r"[a-z0-9.-]+(/[a-z0-9]+)?", one["apiVersion"])
            and re.fullmatch(r"[A-Za-z0-9]+", one["kind"])
            and all(re.fullmatch(r"[A-Za-z0-9.:_-]+", word) for word in named)
        )
    except (TypeError, KeyError, AttributeError):
        return False


def _ranges(cluster: Cluster) -> list[str]:
    found: list[str] = []
    networks: dict[str, IPv4Network] = {}
    for what, text in (("service", cluster.service_ranges[0]), ("pod", cluster.pod_ranges[0])):
        try:
            networks[what] = IPv4Network(text)
        except ValueError as error:
            found.append(f"{what} range {text!r}: {error}")
    found += _ranges_6(cluster)
    if len(networks) < 2:
        return found
    if networks["service"].overlaps(networks["pod"]):
        found.append(f"the ranges {cluster.service_range} and {cluster.pod_range} overlap")
    if networks["service"].prefixlen > 24:
        found.append(f"service range {cluster.service_range}: at least a /24")
    room = 1 << max(0, NODE_BITS - networks["pod"].prefixlen)
    if networks["pod"].prefixlen > NODE_BITS or any(n.index >= room for n in cluster.nodes):
        found.append(f"pod range {cluster.pod_range}: no room for a /{NODE_BITS} for each node")
    for node in cluster.nodes:
        try:
            address = IPv4Address(node.ip)
        except ValueError:
            found.append(f"{node.name}: {node.ip!r} is no IPv4 address; name one for the cluster")
            continue
        for what, network in networks.items():
            if address in network:
                found.append(f"{node.name}: {node.ip} lies in the {what} range {network}")
    return found
