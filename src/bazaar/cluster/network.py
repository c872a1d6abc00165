"""Pods' network: a bridge on each machine, host-local addresses, and ways between machines.

One shell script a machine sets it up, at boot and whenever it changes: plain routes where all
machines are neighbours, VXLAN (RFC 7348) where they are not, WireGuard across strangers' networks.
Where a cluster has both, all that is said of IPv4 is said of IPv6.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import Facts
from bazaar.cluster.parts import Context, File, Unit, text, unit

SCRIPT = "/etc/bazaar-node/network"
CNI = "/etc/cni/net.d/10-bazaar.conflist"
_VXLAN = "bazaar-vxlan"
_VXLAN_ID = 4096
_VXLAN_PORT = 8472  # what Linux, flannel and Cilium use
_TABLE = "bazaar_pods"
_MESH = "bazaar-wg"
_MESH_PORT = 51820
MESH = "/etc/bazaar-node/wireguard.conf"
_MTU = {"vxlan": 1450, "wireguard": 1420}  # what the way's own headers leave of 1500


def chosen(cluster: Cluster, facts: Mapping[str, Facts]) -> str:
    """The way between machines: what was asked for, else what fits them."""
    if cluster.network != "auto":
        return cluster.network
    addresses = [IPv4Address(node.ip) for node in cluster.members]
    for node in cluster.members:
        if node.name not in facts:  # it cannot be asked just now
            continue
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
    if context.network == "wireguard":
        yield text(MESH, _mesh(context), 0o600)


def units(context: Context) -> Iterator[Unit]:
    if context.network != "none":
        mesh = (MESH,) if context.network == "wireguard" else ()
        yield Unit("bazaar-network.service", "prepare", (SCRIPT, *mesh))


def _cni(context: Context) -> File:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,  # the script's table does it for all, once
        **({"mtu": _MTU[context.network]} if context.network in _MTU else {}),
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": own}] for own in context.cluster.pod_ranges_of(context.node)],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
    document = {"cniVersion": "1.0.0", "name": "bazaar", "plugins": [bridge, portmap]}
    return text(CNI, json.dumps(document, indent=1) + "\n")


def _script(context: Context) -> str:
    cluster, node = context.cluster, context.node
    ways = {"routes": _routes, "vxlan": _vxlan, "wireguard": _wireguard}[context.network]
    ranges = zip(("ip", "ip6"), cluster.pod_ranges_of(node), cluster.pod_ranges, strict=False)
    rules = "".join(_masquerade(family, own, whole) for family, own, whole in ranges)
    forward = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n" if cluster.dual else ""
    return (
        "#!/bin/sh -e\n"
        "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin\n"
        "modprobe -qa br_netfilter overlay vxlan wireguard 2>/dev/null || true\n"
        "echo 1 >/proc/sys/net/ipv4/ip_forward\n"
        f"{forward}"
        "for name in iptables ip6tables; do\n"
        "  path=/proc/sys/net/bridge/bridge-nf-call-$name\n"
        "  [ ! -e $path ] || echo 1 >$path\n"
        "done\n"
        f"nft -f - <<'END'\n{rules}END\n"
        f"{ways(context)}"
    )


def _masquerade(family: str, own: str, whole: str) -> str:
    """What leaves the pods' range goes by the machine's own address; it is done once for all."""
    group = "224.0.0.0/4" if family == "ip" else "ff00::/8"
    return (
        f"table {family} {_TABLE}\ndelete table {family} {_TABLE}\n"
        f"table {family} {_TABLE} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    {family} saddr {own} {family} daddr {whole} accept\n"
        f'    {family} saddr {own} {family} daddr != {group} oifname != "cni0" masquerade\n'
        "  }\n}\n"
    )


def _others(context: Context) -> list[Node]:
    return [node for node in context.cluster.members if node.name != context.node.name]


def _routes(context: Context) -> str:
    """Plain routes; those to machines that are gone go with them (their protocol is 98)."""
    cluster, others = context.cluster, _others(context)
    lines = [_stale("-4", [cluster.pod_range_of(node) for node in others])]
    lines += [
        f"ip route replace {cluster.pod_range_of(node)} via {node.ip} proto 98\n" for node in others
    ]
    if cluster.dual:
        lines.append(_stale("-6", [cluster.pod_ranges_of(node)[1] for node in others]))
        lines += [
            f"ip -6 route replace {cluster.pod_ranges_of(node)[1]} via {node.address6} proto 98\n"
            for node in others
            if node.address6
        ]
    return "".join(lines)


def _stale(family: str, ranges: list[str]) -> str:
    """Take away routes of ours to what is none of these ranges."""
    kept = "|".join(one.replace(".", "\\.") for one in ranges)
    show, drop = f"ip {family} route show proto 98", f"ip {family} route del"
    return (
        f"{show} | while read -r range rest; do\n"
        f'  echo "$range" | grep -qxE \'{kept or "-"}\' || {drop} "$range" proto 98\n'
        "done\n"
    )


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
        *(f"ip -6 addr add {end}/128 dev {_VXLAN}\n" for end in _ends(cluster, node)[1:]),
        f"ip link set {_VXLAN} up\n",
    ]
    for other in _others(context):
        hardware, end = _hardware(cluster, other), _end(cluster, other)
        lines += [
            f"bridge fdb replace {hardware} dev {_VXLAN} dst {other.ip}\n",
            f"ip neigh replace {end} lladdr {hardware} dev {_VXLAN} nud permanent\n",
            f"ip route replace {cluster.pod_range_of(other)} via {end} dev {_VXLAN} onlink\n",
        ]
        if cluster.dual:
            pods, end = cluster.pod_ranges_of(other)[1], _ends(cluster, other)[1]
            lines += [
                f"ip neigh replace {end} lladdr {hardware} dev {_VXLAN} nud permanent\n",
                f"ip -6 route replace {pods} via {end} dev {_VXLAN} onlink\n",
            ]
    return "".join(lines)


def _wireguard(context: Context) -> str:
    """One device to all others; who may send from which pods' range, its keys say."""
    cluster, node = context.cluster, context.node
    lines = [
        f"[ -e /sys/class/net/{_MESH} ] || ip link add {_MESH} type wireguard\n",
        f"wg setconf {_MESH} {MESH}\n",
        f"ip addr flush dev {_MESH}\n",
    ]
    # The machine's own packets come from its pods' range, too: else no key would let them in.
    lines += [f"ip addr add {end} dev {_MESH}\n" for end in _ends(cluster, node)]
    lines.append(f"ip link set {_MESH} mtu {_MTU['wireguard']} up\n")
    lines.append(f"ip route flush dev {_MESH} proto 98\n")
    if cluster.dual:
        lines.append(f"ip -6 route flush dev {_MESH} proto 98\n")
    for other in _others(context):
        for pods, own in zip(cluster.pod_ranges_of(other), _ends(cluster, node), strict=True):
            family = "-6 " if ":" in pods else ""
            lines.append(f"ip {family}route replace {pods} dev {_MESH} src {own} proto 98\n")
    return "".join(lines)


def _mesh(context: Context) -> str:
    """What `wg setconf` reads."""
    keys = context.keys["wireguard"]
    own = keys[context.node.name]["key"]
    lines = [f"[Interface]\nPrivateKey = {own}\nListenPort = {_MESH_PORT}\n"]
    for other in _others(context):
        ranges = ", ".join(context.cluster.pod_ranges_of(other))
        lines.append(
            f"\n[Peer]\n# {other.name}\nPublicKey = {keys[other.name]['public']}\n"
            f"AllowedIPs = {ranges}\nEndpoint = {other.ip}:{_MESH_PORT}\n"
            "PersistentKeepalive = 25\n"
        )
    return "".join(lines)


def _end(cluster: Cluster, node: Node) -> str:
    """The tunnel's address at a machine: the first of its pods' range, which no pod gets."""
    return cluster.pod_range_of(node).partition("/")[0]


def _ends(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """That of IPv4 and, where there are both, of IPv6: there the first is any router's."""
    further = (str(IPv6Network(one)[-2]) for one in cluster.pod_ranges_of(node)[1:])
    return (_end(cluster, node), *further)


def _hardware(cluster: Cluster, node: Node) -> str:
    """A hardware address of the machine's own, locally administered."""
    digest = hashlib.sha256(f"{cluster.name} {_end(cluster, node)}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))
