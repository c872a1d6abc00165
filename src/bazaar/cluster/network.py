"""Pods' network: a bridge on each machine, host-local addresses, and ways between machines.

One shell script a machine sets it up, at boot and whenever it changes: plain routes where all
machines are neighbours, VXLAN (RFC 7348) where they are not, WireGuard across strangers' networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import Facts
from bazaar.cluster.parts import Context, File, Unit, text, unit

SCRIPT = "/etc/bazaar-node/network"
CNI = "/etc/cni/net.d/10-bazaar.conflist"
_VXLAN = "bazaar-vxlan"
_VXLAN_ID = 4096
_VXLAN_PORT = 8472  # what Linux, flannel and Cilium use
_TABLE = "bazaar_pods"


def chosen(cluster: Cluster, facts: Mapping[str, Facts]) -> str:
    """The way between machines: what was asked for, else what fits them."""
    if cluster.network != "auto":
        return cluster.network
    addresses = [IPv4Address(node.ip) for node in cluster.nodes]
    for node in cluster.nodes:
        own = _network_of(node, facts[node.name])
        if own is None or any(address not in own for address in addresses):
            return "vxlan"
    return "routes"


def _network_of(node: Node, facts: Facts) -> IPv4Network | None:
    """The network, by its prefix, that a machine's own address lies in."""
    for word in facts.addresses:
        try:
            interface = IPv4Interface(word)
        except ValueError:
            continue
        if str(interface.ip) == node.ip:
            return interface.network
    return None


def files(context: Context) -> Iterator[File]:
    """The script, its unit, and what containerd is told of it."""
    if context.network == "none":
        return
    yield text(SCRIPT, _script(context), 0o755)
    yield unit(
        "bazaar-network.service",
        "The network of pods",
        [SCRIPT],
        kind="oneshot",
        service=("RemainAfterExit=yes",),
    )
    yield _cni(context)


def units(context: Context) -> Iterator[Unit]:
    if context.network != "none":
        yield Unit("bazaar-network.service", "prepare", (SCRIPT,))


def _cni(context: Context) -> File:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,  # the script's table does it for all, once
        **({"mtu": 1450} if context.network == "vxlan" else {}),
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": context.cluster.pod_range_of(context.node)}]],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
    document = {"cniVersion": "1.0.0", "name": "bazaar", "plugins": [bridge, portmap]}
    return text(CNI, json.dumps(document, indent=1) + "\n")


def _script(context: Context) -> str:
    cluster, node = context.cluster, context.node
    own = cluster.pod_range_of(node)
    ways = {"routes": _routes, "vxlan": _vxlan}[context.network]
    rules = (
        f"table ip {_TABLE}\ndelete table ip {_TABLE}\n"
        f"table ip {_TABLE} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {own} ip daddr {cluster.pod_range} accept\n"
        f'    ip saddr {own} ip daddr != 224.0.0.0/4 oifname != "cni0" masquerade\n'
        "  }\n}\n"
    )
    return (
        "#!/bin/sh -e\n"
        "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin\n"
        "modprobe -qa br_netfilter overlay vxlan 2>/dev/null || true\n"
        "echo 1 >/proc/sys/net/ipv4/ip_forward\n"
        "for name in iptables ip6tables; do\n"
        "  path=/proc/sys/net/bridge/bridge-nf-call-$name\n"
        "  [ ! -e $path ] || echo 1 >$path\n"
        "done\n"
        f"nft -f - <<'END'\n{rules}END\n"
        f"{ways(context)}"
    )


def _others(context: Context) -> list[Node]:
    return [node for node in context.cluster.nodes if node.name != context.node.name]


def _routes(context: Context) -> str:
    """Plain routes; those to machines that are gone go with them (their protocol is 98)."""
    others = _others(context)
    lines = [
        f"ip route replace {context.cluster.pod_range_of(node)} via {node.ip} proto 98\n"
        for node in others
    ]
    kept = "|".join(context.cluster.pod_range_of(node).replace(".", "\\.") for node in others)
    stale = (
        "ip -4 route show proto 98 | while read -r range rest; do\n"
        f'  echo "$range" | grep -qxE \'{kept or "-"}\' || ip route del "$range" proto 98\n'
        "done\n"
    )
    return "".join([stale, *lines])


def _vxlan(context: Context) -> str:
    """A device whose neighbours are all known: nothing is flooded and nothing is learned."""
    cluster, node = context.cluster, context.node
    device = context.facts.value("device") or "eth0"
    lines = [
        f"ip link del {_VXLAN} 2>/dev/null || true\n",
        (
            f"ip link add {_VXLAN} address {_hardware(cluster, node)} mtu 1450 type vxlan "
            f"id {_VXLAN_ID} local {node.ip} dev {device} dstport {_VXLAN_PORT} nolearning\n"
        ),
        f"ip addr add {_end(cluster, node)}/32 dev {_VXLAN}\n",
        f"ip link set {_VXLAN} up\n",
    ]
    for other in _others(context):
        hardware, end = _hardware(cluster, other), _end(cluster, other)
        lines += [
            f"bridge fdb replace {hardware} dev {_VXLAN} dst {other.ip}\n",
            f"ip neigh replace {end} lladdr {hardware} dev {_VXLAN} nud permanent\n",
            f"ip route replace {cluster.pod_range_of(other)} via {end} dev {_VXLAN} onlink\n",
        ]
    return "".join(lines)


def _end(cluster: Cluster, node: Node) -> str:
    """The tunnel's address at a machine: the first of its pods' range, which no pod gets."""
    return cluster.pod_range_of(node).partition("/")[0]


def _hardware(cluster: Cluster, node: Node) -> str:
    """A hardware address of the machine's own, locally administered."""
    digest = hashlib.sha256(f"{cluster.name} {_end(cluster, node)}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
