"""The network of plain `bazaar run`: one bridge on the host, masqueraded to the world."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import NetworkError
from bazaar.host import namespaces
from bazaar.host.background import Background
from bazaar.model.site import Attachment
from bazaar.site import network, outbound, subnets

BRIDGE = "bz-run"
_TABLE = "bazaar_run"
_MARK = "bazaar run"


def connect_run(container_id: str, *, to_world: bool = True) -> Attachment:
    """Make a fresh namespace for a container of `bazaar run`, on the bridge they share.

    Without ``to_world`` it reaches the host and its neighbours alone. NetworkError when no
    address is left, MissingError where there is no nftables for the way out.
    """
    with outbound.locked("run-network"):
        network.disconnect(container_id)
        own, fresh = _ensure_bridge()
        gateway = own[1]
        ports = [] if fresh else _ports()
        used = {address for _, address in ports}
        free = (host for host in own.hosts() if host != gateway and host not in used)
        address = next(free, None)
        if address is None:
            raise NetworkError(f"no address is left in {own}, the network of `bazaar run`")
        # The kernel takes its time over the first table: wire the container meanwhile.
        way_out = Background(lambda: _open(own, first=not ports)) if to_world else None
        try:
            return network.attach(
                container_id, str(address), str(gateway), bridge=BRIDGE, namespace=None, prefix=16
            )
        finally:
            if way_out is not None:
                way_out.result()


def _open(own: IPv4Network, *, first: bool) -> None:
    if first or not outbound.allowed(_TABLE):
        outbound.allow(_TABLE, own, BRIDGE)


def disconnect_run(container_id: str) -> None:
    """Take such a container's namespace away, and with the last one all the rest."""
    with outbound.locked("run-network"):
        network.disconnect(container_id)
        if not namespaces.interface_exists(BRIDGE) or _ports():
            return
        outbound.forbid(_TABLE)
        namespaces.remove_interface(BRIDGE)
        namespaces.tidy()


def _ensure_bridge() -> tuple[IPv4Network, bool]:
    """The bridge's network, and whether the bridge was made just now."""
    links = namespaces.links()
    if link := links.get(BRIDGE):
        if link.get("ifalias", _MARK) != _MARK:
            raise NetworkError(f"the interface {BRIDGE} is in the way: Bazaar did not make it")
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet" and "UP" in link.get("flags", []):
                return IPv4Network(f"{entry['local']}/16", strict=False), False
        namespaces.remove_interface(BRIDGE)  # half-made
    own = subnets.first_free(subnets.taken(links), descending=True)
    hardware = network.hardware_address(own[1])
    namespaces.batch(
        [
            f"link add {BRIDGE} address {hardware} type bridge forward_delay 0",
            # Without an IPv6 address of its own: looking for its like takes a second.
            f'link set {BRIDGE} alias "{_MARK}" addrgenmode none',
            f"address add {own[1]}/16 dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ]
    )
    return own, True


def _ports() -> list[tuple[str, IPv4Address]]:
    """The containers on the bridge: id and address, from their links' aliases."""
    found: list[tuple[str, IPv4Address]] = []
    for link in namespaces.query(f"link show master {BRIDGE}"):
        mark = str(link.get("ifalias", "")).split()
        if mark[:2] == ["bazaar", "container"] and len(mark) == 4:
            found.append((mark[2], IPv4Address(mark[3])))
    return found
