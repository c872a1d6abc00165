"""The network of plain `bazaar run`: one bridge on the host, masqueraded to the world."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import NetworkError
from bazaar.host import locks, namespaces, outbound, ranges
from bazaar.host.background import Background
from bazaar.model.site import Attachment
from bazaar.site import network, subnets
from bazaar.typed import Any

BRIDGE = "bz-run"
_TABLE = "bazaar_run"
_MARK = "bazaar run"


def connect_run(
    container_id: str,
    *,
    to_world: bool = True,
    begun: bool = False,
) -> Attachment:
    """Make a fresh namespace for a container of `bazaar run`, on the bridge they share.

    Without ``to_world`` it reaches the host and its neighbours alone. ``begun``: the namespace
    is there already, bare. NetworkError when no address is left, MissingError where there is
    no nftables for the way out.
    """
    with locks.of_machine("run-network"):
        if not begun:
            network.disconnect(container_id)
        # Each look costs the start of a program: this is the only one.
        links, routes = namespaces.links_and_routes()
        own, making = _bridge(links, routes)
        gateway, used = own[1], {address for _, address in _ports(links)}
        address = next((host for host in own.hosts() if host not in {gateway, *used}), None)
        if address is None:
            raise NetworkError(f"no address is left in {own}, the network of `bazaar run`")

        def open_way() -> None:
            if making or not used or not outbound.allowed(_TABLE):
                outbound.allow(_TABLE, own, BRIDGE, routes)

        # The kernel takes its time over the first table: wire the container meanwhile.
        way_out = Background(open_way) if to_world else None
        try:
            attachment = network.attach(
                container_id,
                str(address),
                str(gateway),
                bridge=BRIDGE,
                namespace=None,
                prefix=16,
                before=making,
                begun=begun,
            )
        finally:
            if way_out is not None:
                way_out.wait()
        if to_world:
            outbound.forward(BRIDGE)
        return attachment


def disconnect_run(container_id: str) -> None:
    """Take such a container's namespace away, and with the last one all the rest."""
    with locks.of_machine("run-network"):
        network.disconnect(container_id)
        if not namespaces.interface_exists(BRIDGE) or _ports(namespaces.links()):
            return
        outbound.forbid(_TABLE)
        namespaces.remove_interface(BRIDGE)
        namespaces.tidy()


def _bridge(
    links: dict[str, dict[str, Any]], routes: list[dict[str, Any]]
) -> tuple[IPv4Network, list[str]]:
    """The bridge's network, and the `ip` commands that make it where it is not there."""
    if link := links.get(BRIDGE):
        if link.get("ifalias", _MARK) != _MARK:
            raise NetworkError(f"the interface {BRIDGE} is in the way: Bazaar did not make it")
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet" and "UP" in link.get("flags", []):
                return IPv4Network(f"{entry['local']}/16", strict=False), []
        namespaces.remove_interface(BRIDGE)  # half-made
    own = subnets.first_free(ranges.taken(links, routes), descending=True)
    hardware = namespaces.hardware_address(own[1])
    return own, [
        f"link add {BRIDGE} address {hardware} type bridge forward_delay 0",
        # Without an IPv6 address of its own: looking for its like takes a second.
        f'link set {BRIDGE} alias "{_MARK}" addrgenmode none',
        f"address add {own[1]}/16 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]


def _ports(links: dict[str, dict[str, Any]]) -> list[tuple[str, IPv4Address]]:
    """The containers on the bridge: id and address, from their links' aliases."""
    found: list[tuple[str, IPv4Address]] = []
    for link in links.values():
        mark = str(link.get("ifalias", "")).split()
        if link.get("master") == BRIDGE and mark[:2] == ["bazaar", "container"] and len(mark) == 4:
            found.append((mark[2], IPv4Address(mark[3])))
    return found
