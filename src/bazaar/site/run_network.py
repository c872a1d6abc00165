"""The network of plain `bazaar run`: one bridge on the host, masqueraded to the world."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import NetworkError
from bazaar.host import namespaces
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
        own = _ensure_bridge()
        gateway = own[1]
        ports = _ports()
        used = {address for _, address in ports}
        free = (host for host in own.hosts() if host != gateway and host not in used)
        address = next(free, None)
        if address is None:
            raise NetworkError(f"no address is left in {own}, the network of `bazaar run`")
        if to_world and not (ports and outbound.allowed(_TABLE)):
            outbound.allow(_TABLE, own, BRIDGE)
        return network.attach(
            container_id, str(address), str(gateway), bridge=BRIDGE, namespace=None, prefix=16
        )


def disconnect_run(container_id: str) -> None:
    """Take such a container's namespace away, and with the last one all the rest."""
    with outbound.locked("run-network"):
        network.disconnect(container_id)
        if not namespaces.interface_exists(BRIDGE) or _ports():
            return
        outbound.forbid(_TABLE)
        namespaces.remove_interface(BRIDGE)
        namespaces.tidy()


def _ensure_bridge() -> IPv4Network:
    if link := namespaces.links().get(BRIDGE):
        if link.get("ifalias", _MARK) != _MARK:
            raise NetworkError(f"the interface {BRIDGE} is in the way: Bazaar did not make it")
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet" and "UP" in link.get("flags", []):
                return IPv4Network(f"{entry['local']}/16", strict=False)
        namespaces.remove_interface(BRIDGE)  # half-made
    own = subnets.first_free(subnets.taken(), descending=True)
    hardware = network.hardware_address(own[1])
    namespaces.batch(
        [
            f"link add {BRIDGE} address {hardware} type bridge forward_delay 0",
            f'link set {BRIDGE} alias "{_MARK}"',
            f"address add {own[1]}/16 dev {BRIDGE}",
        ]
    )
    namespaces.sysctl(f"net/ipv6/conf/{BRIDGE}/disable_ipv6", "1")
    namespaces.batch([f"link set {BRIDGE} up"])
    return own


def _ports() -> list[tuple[str, IPv4Address]]:
    """The containers on the bridge: id and address, from their links' aliases."""
    found: list[tuple[str, IPv4Address]] = []
    for link in namespaces.query(f"link show master {BRIDGE}"):
        mark = str(link.get("ifalias", "")).split()
        if mark[:2] == ["bazaar", "container"] and len(mark) == 4:
            found.append((mark[2], IPv4Address(mark[3])))
    return found
