"""The machines' network: a bridge with a /24, one namespace a machine, masqueraded to the world.

Each machine's namespace is made before it boots and outlives its reboots. The bridge carries
the mark of its state folder; its address is the only record of the range.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bazaar.errors import NetworkError
from bazaar.host import commands, locks, namespaces, outbound, ranges
from bazaar.host.machines import places

# Where a free /24 is looked for: away from bazaars' networks and Kubernetes' usual ranges.
_WITHIN = ("10.253.0.0/16", "172.29.0.0/16", "192.168.128.0/17")
_DEVICE = "eth0"


def make() -> IPv4Network:
    """The machines' range; makes the bridge and the way out where they are missing.

    MissingError without nftables, NetworkError where no range is free.
    """
    commands.find("nft", package="nftables")
    bridge = _bridge()
    with locks.of_machine("machines-network"):
        links, routes = namespaces.links_and_routes()
        own = _range(links.get(bridge))
        if own is None:
            namespaces.remove_interface(bridge)  # half-made
            own = _free(ranges.taken(links, routes))
            hardware = namespaces.hardware_address(own[1])
            namespaces.batch(
                [
                    f"link add {bridge} address {hardware} type bridge forward_delay 0",
                    f'link set {bridge} alias "bazaar machines {places.tag()}" addrgenmode none',
                    f"address add {own[1]}/{own.prefixlen} dev {bridge}",
                    f"link set {bridge} up",
                ]
            )
        if not outbound.allowed(_table()):
            outbound.allow(_table(), own, bridge, routes)
        outbound.forward(bridge)
    return own


def attach(name: str, own: IPv4Network) -> str:
    """Give a machine a namespace on the bridge; its address."""
    address = own[places.FIRST - 1 + places.number(name)]
    namespace, outside = places.identity(name), _outside(name)
    mark = f"bazaar machine {places.tag()} {name}"
    namespaces.create(namespace, mark=mark)
    hardware = namespaces.hardware_address(address)
    namespaces.batch(
        [
            namespaces.veth(outside, _DEVICE, namespace, options=f"address {hardware}"),
            f'link set {outside} master {_bridge()} alias "{mark}" addrgenmode none',
        ]
    )
    namespaces.batch(
        [
            f"address add {address}/{own.prefixlen} dev {_DEVICE}",
            f"link set {_DEVICE} up",
            f"route add default via {own[1]}",
        ],
        namespace,
    )
    return str(address)


def detach(name: str) -> None:
    """Take a machine's namespace and link away."""
    namespaces.remove_interface(_outside(name))
    namespaces.delete(places.identity(name))


def attached() -> list[str]:
    """The machines that have a namespace."""
    prefix = places.identity("")
    found = (name.removeprefix(prefix) for name in namespaces.entries(prefix))
    return [name for name in found if places.number(name)]


def remove() -> None:
    """Take away what all machines share, when none is left."""
    with locks.of_machine("machines-network"):
        outbound.forbid(_table())
        namespaces.remove_interface(_bridge())
        namespaces.tidy()


def _bridge() -> str:
    return namespaces.interface_name("machines", places.tag())


def _outside(name: str) -> str:
    return namespaces.interface_name("machine", places.tag(), name)


def _table() -> str:
    return f"bazaar_machines_{places.tag()}"


def _range(link: dict[str, Any] | None) -> IPv4Network | None:
    """The range of a bridge that is whole."""
    for entry in (link or {}).get("addr_info", []):
        if entry.get("family") == "inet" and link and "UP" in link.get("flags", []):
            return IPv4Network(f"{IPv4Address(entry['local'])}/24", strict=False)
    return None


def _free(used: list[ranges.Taken]) -> IPv4Network:
    for network in _candidates():
        if not any(entry.network.overlaps(network) for entry in used):
            return network
    raise NetworkError(
        f"no /24 of {', '.join(_WITHIN)} is free on this host",
        hint="`ip route` shows what has them",
    )


def _candidates() -> Iterator[IPv4Network]:
    for wide in _WITHIN:
        yield from IPv4Network(wide).subnets(new_prefix=24)
