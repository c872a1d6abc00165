"""What must be true of machines before anything is changed there: pure, from facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import Facts
from bazaar.errors import SpecError
from bazaar.model.problem import Problem

CLOCK_SECONDS = 30.0  # more than certificates' and etcd's tolerance
DISK_KIB = 3 << 20
MEMORY_KIB = 900 << 10
_ARCHITECTURES = ("x86_64", "aarch64")
_PORTS = {10250: "kubelet", 10256: "kube-proxy"}
_CONTROL_PORTS = {
    2379: "etcd",
    2380: "etcd",
    10257: "kube-controller",
    10259: "kube-scheduler",
    4443: "metrics",
}


def refuse(
    nodes: Iterable[Node],
    cluster: Cluster,
    facts: Mapping[str, Facts],
    ages: Mapping[str, float],
) -> None:
    """Raise SpecError with all that forbids the cluster on these of its machines.

    ``ages`` is by how many seconds each machine's clock differs from ours.
    """
    problems = [
        Problem(text, path=f"{node.name} ({node.ip})")
        for node in nodes
        for text in _of(cluster, node, facts[node.name], ages.get(node.name, 0.0))
    ]
    if problems:
        raise SpecError(problems)


def _of(cluster: Cluster, node: Node, facts: Facts, age: float) -> Iterator[str]:
    if facts.value("user") != "0":
        yield "needs root, or sudo without a password"
    if facts.value("init") != "systemd":
        yield "is not run by systemd, which looks after everything there"
    if facts.value("architecture") not in _ARCHITECTURES:
        yield f"architecture {facts.value('architecture')!r}: one of {', '.join(_ARCHITECTURES)}"
    if abs(age) > CLOCK_SECONDS:
        yield (
            f"its clock is {abs(age):.0f} s {'ahead' if age > 0 else 'behind'}: set it "
            "(`timedatectl set-ntp true`), since certificates are true for a time"
        )
    if cluster.dual and not node.address6 and not node.etcd:
        yield "has no way out by IPv6, which dual stack needs"
    yield from _room(facts)
    yield from _occupied(cluster, node, facts)


def _room(facts: Facts) -> Iterator[str]:
    new = not facts.value("identity")
    if new and facts.number("disk_kib") < DISK_KIB:
        free = facts.number("disk_kib") / (1 << 20)
        yield f"{free:.1f} GiB free below /var/lib: {DISK_KIB >> 20} GiB are needed"
    if facts.number("memory_kib") < MEMORY_KIB:
        yield f"{facts.number('memory_kib') >> 10} MiB of memory: {MEMORY_KIB >> 10} are needed"


def _occupied(cluster: Cluster, node: Node, facts: Facts) -> Iterator[str]:
    identity = facts.value("identity").partition(" ")[0]
    if identity and identity != cluster.name:
        yield (
            f"belongs to the cluster {identity}: `bazaar cluster reset --name {identity}` "
            "where that was made"
        )
        return
    if identity:
        return
    if other := facts.value("kubernetes"):
        yield (
            f"has another Kubernetes ({other.split()[0]}): take it away first "
            "(`kubeadm reset`, `k3s-uninstall.sh`)"
        )
        return
    ports = dict(_PORTS)
    if node.etcd:
        ports = {2379: "etcd", 2380: "etcd"}
    if node.control_plane:
        ports |= {**_CONTROL_PORTS, cluster.api_port: "kube-apiserver"}
    for port, what in ports.items():
        if port in facts.ports:
            yield f"port {port}, for {what}, is taken by {facts.ports[port] or 'somebody'}"
