"""Clusters on paper: descriptions, facts as a machine would tell them, keys made once."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

from bazaar.cluster import facts as ask
from bazaar.cluster import pki
from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.desired import Desired
from bazaar.cluster.facts import Facts
from bazaar.cluster.parts import Context, Programs
from bazaar.model.machine import Machine

FRESH = """\
os=debian
os_version=12
architecture=x86_64
hostname={name}
user=0
clock={clock}
processors=2
memory_kib=4000000
swap_kib=0
cgroup=2
init=systemd
capabilities=000001ffffffffff
disk_kib=50000000
root_type=ext2/ext3
containerd_type=ext2/ext3
forwarding=0
source={address}
device=eth0
name_servers=10.0.0.1
identity=
kubernetes=
address 127.0.0.1/8
address {address}/24
program containerd /usr/bin/containerd
program runc /usr/sbin/runc
program haproxy /usr/sbin/haproxy
program nft /usr/sbin/nft
program conntrack /usr/sbin/conntrack
port 0.0.0.0:22 sshd
"""
PROGRAMS = Programs("1.36.3", "/cache/cluster/0123456789abcdef", "d" * 64)
EXTRAS = Programs(
    "", "/cache/cluster/extras-0123456789abcdef", "e" * 64, ("local-path.tar", "metrics-server")
)


def cluster(planes: int = 1, workers: int = 0, **more: Any) -> Cluster:
    """A cluster of cp1, … and w1, … at 10.1.0.11 and on."""
    names = [f"cp{n + 1}" for n in range(planes)] + [f"w{n + 1}" for n in range(workers)]
    nodes = tuple(
        Node(name, Machine(name, f"10.1.0.{11 + index}"), name.startswith("cp"), index)
        for index, name in enumerate(names)
    )
    return Cluster("paris", nodes, "1.36.3", **more)


@functools.lru_cache(maxsize=8)
def _keys(planes: int, workers: int) -> Mapping[str, Any]:
    return pki.renewed({}, cluster(planes, workers), time.time())


def keys(of: Cluster) -> Mapping[str, Any]:
    """Keys of a cluster as `cluster` makes it."""
    return _keys(len(of.control_planes), len(of.workers))


def fresh(node: Node, extra: str = "") -> Facts:
    """What a machine with nothing on it says."""
    text = FRESH.format(name=node.name, address=node.ip, clock=time.time())
    return ask.parse(f"{text}{extra}end=facts\n", node.name)


def context(of: Cluster, node: Node, facts: Facts | None = None, way: str = "routes") -> Context:
    """All that says how a machine is to be."""
    told = facts if facts is not None else fresh(node)
    return Context(of, node, told, way, keys(of), PROGRAMS, EXTRAS, of.gvisor)


def done(node: Node, wanted: Desired) -> Facts:
    """What a machine says that is as it is to be."""
    lines = [f"set {one.manifest} {one.there}" for one in (PROGRAMS, EXTRAS)]
    for path, file in wanted.files.items():
        lines += [f"file {file.digest} {path}", f"file mode {file.mode:o} {path}"]
    lines += [f"unit {unit.name} active {wanted.digest_of(unit)}" for unit in wanted.units]
    return fresh(node, "".join(f"{line}\n" for line in lines))
