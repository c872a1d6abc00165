"""The network of a bazaar on this machine: a front, sites behind it, containers in the sites.

    host ── uplink ── bz-<bazaar> ──┬── bz-<bazaar>-<site> ── bridge ──┬── bz-<container id>
    10.44.0.1        10.44.0.2      │   10.44.1.1                      │   10.44.1.11
                     10.44.0.10…    └── bz-<bazaar>-<site> …           └── bz-<container id> …

All is routed inside the front's namespace; the host itself forwards nothing unless a
bazaar asks for the world outside. Every function can be interrupted and called again, and
what exists is read back from the kernel, never from stored state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import NetworkError
from bazaar.host import namespaces, outbound
from bazaar.host.namespaces import hardware_address
from bazaar.model.site import Attachment
from bazaar.site.naming import UPLINK, container_namespace, front_namespace, site_namespace
from bazaar.site.observe import belongs, mark_of, observed
from bazaar.site.subnets import choose_subnet, front_gateway, host_side, parse

__all__ = [
    "choose_subnet",
    "connect",
    "disconnect",
    "ensure_addresses",
    "ensure_front",
    "ensure_site",
    "front_namespace",
    "host_interface",
    "isolate",
    "isolate_addresses",
    "observed",
    "remove_addresses",
    "remove_all",
    "remove_site",
    "restore",
    "restore_addresses",
    "site_namespace",
    "uplink",
]

_BRIDGE = "bridge"  # inside a site's
_FRONT_LINK = "front"  # inside a site's: its way to the front
_INTERFACE = "eth0"  # inside a container's
_NOBODY, _NO_HARDWARE = 254, "02:00:00:00:00:00"  # where packets go to be lost

_ROUTER = (
    ("net.ipv4.ip_forward", "1"),
    # No IPv6 on the links to come: its address detection would delay and chat on each.
    ("net.ipv6.conf.default.disable_ipv6", "1"),
)
_FRONT = (
    *_ROUTER,
    # The balance opens a connection a request at worst: give it all the ports there are.
    ("net.ipv4.ip_local_port_range", "1024 65535"),
    # Data that no replica acknowledges: give up after 1.4 s, not after 15 minutes.
    ("net.ipv4.tcp_retries2", "2"),
)
_CONTAINER_SYSCTLS = (
    ("net.ipv6.conf.default.disable_ipv6", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),  # services listen on 80 without root
)


def uplink(bazaar: str) -> str:
    """The interface inside the front's namespace by which all from outside arrives."""
    front_namespace(bazaar)
    return UPLINK


def host_interface(bazaar: str) -> str:
    """The host's end of the uplink."""
    return namespaces.interface_name("uplink", bazaar)


def ensure_front(
    bazaar: str, subnet: str, *, to_world: bool = False, reach: Collection[str] = ()
) -> str:
    """Make the front's namespace and its link to the host, or repair them; returns its name.

    With ``to_world`` containers reach what the host reaches, behind the host's address; the
    front itself reaches the addresses of ``reach``: machines of clusters.
    NetworkError when the subnet is taken, or this bazaar is up with another one.
    """
    network = parse(subnet, 16)
    front, outside = front_namespace(bazaar), host_interface(bazaar)
    held = choose_subnet(bazaar=bazaar) if namespaces.interface_exists(outside) else subnet
    if held != str(network):
        raise NetworkError(
            f"the bazaar {bazaar} is up with the subnet {held}, not {subnet}",
            hint=f"`bazaar down {bazaar}` first; running services keep their addresses until then",
        )
    choose_subnet(subnet, bazaar=bazaar)
    mark = f"bazaar front {bazaar}"
    namespaces.create(front, mark=mark, sysctls=_FRONT)
    _check_mark(front, mark)
    lines: list[str] = []
    if not (namespaces.interface_exists(outside) and namespaces.interface_exists(UPLINK, front)):
        namespaces.remove_interface(outside)
        lines = [
            namespaces.veth(outside, UPLINK, front),
            f'link set {outside} alias "{mark}"',
            # The route is the claim on the subnet: the second to add it fails.
            f"route add {network} via {front_gateway(network)} dev {outside} onlink",
        ]
    try:
        namespaces.batch([*lines, f"address replace {host_side(network)}/24 dev {outside}"])
    except NetworkError:
        if lines:  # somebody else was quicker, and is named here
            namespaces.remove_interface(outside)
            choose_subnet(subnet, bazaar=bazaar)
        raise
    inside = [f"address replace {front_gateway(network)}/24 dev {UPLINK}", f"link set {UPLINK} up"]
    if to_world:
        inside.append(f"route replace default via {host_side(network)}")
    inside += [f"route replace {_one(address)} via {host_side(network)}" for address in reach]
    namespaces.batch(inside, front)
    namespaces.batch(
        [
            f"route replace {network} via {front_gateway(network)} dev {outside}",
            f"link set {outside} up",
        ]
    )
    if to_world:
        outbound.allow(f"bazaar_{bazaar}", network, outside)
    elif reach:
        own = IPv4Network(f"{host_side(network)}/24", strict=False)
        outbound.allow(f"bazaar_{bazaar}", own, outside, reach=reach)
    else:
        outbound.forbid(f"bazaar_{bazaar}")
        with contextlib.suppress(NetworkError):
            namespaces.batch(["route delete default"], front)
    return front


def ensure_site(bazaar: str, site: str, subnet: str) -> str:
    """Make a site's namespace and its link to the front, or repair them; returns its name.

    The front must exist. A site that was cut off is joined again.
    """
    network = parse(subnet, 24)
    front, own = front_namespace(bazaar), site_namespace(bazaar, site)
    gateway, mark = network[1], f"bazaar site {bazaar} {site}"
    lines = [
        # An address of its own: a bridge that borrows its ports' changes it as they come and go.
        f"link add {_BRIDGE} address {hardware_address(gateway)} type bridge forward_delay 0",
        f"address add {gateway}/24 dev {_BRIDGE}",
        f"link set {_BRIDGE} up",
    ]
    namespaces.create(own, mark=mark, lines=lines, sysctls=_ROUTER)
    _check_mark(own, mark)
    name = _site_link(bazaar, site)
    lines = []
    if not (
        namespaces.interface_exists(_FRONT_LINK, own) and namespaces.interface_exists(name, front)
    ):
        namespaces.remove_interface(name, front)
        namespaces.remove_interface(_FRONT_LINK, own)
        lines = [namespaces.veth(name, _FRONT_LINK, own), f'link set {name} alias "{mark}"']
    way = f"route replace {network} via {gateway} dev {name} onlink"
    namespaces.batch([*lines, f"link set {name} up", way], front)
    restore(bazaar, site)
    return own


def isolate(bazaar: str, site: str) -> None:
    """Cut a site off at once, as if its line were dug up: what was sent there is never answered."""
    namespaces.batch([f"link set {_FRONT_LINK} down"], site_namespace(bazaar, site))


def restore(bazaar: str, site: str) -> None:
    """Join a site that was cut off again."""
    own = site_namespace(bazaar, site)
    gateway = _bridge_address(own)
    via = front_gateway(IPv4Network(f"{gateway}/16", strict=False))
    namespaces.batch(
        [
            f"link set {_FRONT_LINK} up",
            f"route replace default via {via} dev {_FRONT_LINK} onlink src {gateway}",
        ],
        own,
    )


def isolate_addresses(bazaar: str, addresses: Iterable[str]) -> None:
    """Cut machines off from the front at once: what is sent there is never answered."""
    front = front_namespace(bazaar)
    nobody = _uplink_network(bazaar)[_NOBODY]
    lines = [f"neighbour replace {nobody} lladdr {_NO_HARDWARE} nud permanent dev {UPLINK}"]
    lines += [f"route replace {_one(one)} via {nobody} dev {UPLINK} onlink" for one in addresses]
    namespaces.batch(lines, front)


def restore_addresses(bazaar: str, addresses: Iterable[str]) -> None:
    """Let the front reach machines again that were cut off."""
    gateway = host_side(_uplink_network(bazaar))
    lines = [f"route replace {_one(one)} via {gateway}" for one in addresses]
    namespaces.batch(lines, front_namespace(bazaar))


def _uplink_network(bazaar: str) -> IPv4Network:
    for link in namespaces.query(f"address show dev {UPLINK}", front_namespace(bazaar)):
        for entry in link.get("addr_info", []):
            if entry.get("prefixlen") == 24:
                return IPv4Network(f"{entry['local']}/16", strict=False)
    raise NetworkError(f"the front of the bazaar {bazaar} has no way out")


def _one(address: str) -> str:
    """An address as a destination; never the words of a command."""
    return f"{IPv4Address(address)}/32"


def remove_site(bazaar: str, site: str) -> None:
    """Take a site away, with the namespaces of the containers in it."""
    own = site_namespace(bazaar, site)
    if namespaces.exists(own):
        _check_mark(own, f"bazaar site {bazaar} {site}")
        for link in namespaces.query("link show type veth", own):
            mark = str(link.get("ifalias", "")).split()
            if mark[:2] == ["bazaar", "container"] and len(mark) > 2:
                disconnect(mark[2])
    if namespaces.exists(front_namespace(bazaar)):
        namespaces.remove_interface(_site_link(bazaar, site), front_namespace(bazaar))
    namespaces.delete(own)


def connect(bazaar: str, site: str, container_id: str, address: str) -> Attachment:
    """Make a fresh namespace with ``address`` in a site, for one start of a container.

    One of an earlier start goes first: an engine that takes a namespace's addresses for
    itself (gVisor) leaves it unusable.
    """
    disconnect(container_id)
    own = site_namespace(bazaar, site)
    if not namespaces.exists(own):
        raise NetworkError(f"the site {site} of the bazaar {bazaar} is not there")
    gateway = IPv4Network(f"{address}/24", strict=False)[1]
    return attach(container_id, address, str(gateway), bridge=_BRIDGE, namespace=own)


def attach(
    container_id: str,
    address: str,
    gateway: str,
    *,
    bridge: str,
    namespace: str | None,
    prefix: int = 24,
    before: Sequence[str] = (),
    begun: bool = False,
) -> Attachment:
    """Wire a fresh namespace into a bridge of ``namespace`` (None: of the host).

    The bridge may be what the ``ip`` commands of ``before`` make there. ``begun``: the fresh
    namespace has its name already, and nothing in it.
    """
    own = container_namespace(container_id)
    port = namespaces.interface_name("port", container_id)
    # From the address: neighbours that remember the last start's find this one's too.
    hardware = hardware_address(IPv4Address(address))
    peer = f"peer name {port} netns {namespace or os.getpid()}"
    lines = [
        f"link add {_INTERFACE} address {hardware} up type veth {peer}",
        f"address add {address}/{prefix} dev {_INTERFACE}",
        f"route add default via {gateway}",
    ]
    mark = f"bazaar container {container_id} {address}"
    make = namespaces.set_up if begun else namespaces.create
    # The port of a namespace that somebody deleted stays until the kernel gets to it.
    namespaces.remove_interface(port, namespace)
    make(own, mark=mark, lines=lines, sysctls=_CONTAINER_SYSCTLS)
    joined = f'link set {port} master {bridge} up alias "{mark}"'
    namespaces.batch([*before, joined], namespace)
    return Attachment(own, address, gateway, prefix)


def disconnect(container_id: str) -> None:
    """Take a container's namespace and its link away, if they are there."""
    own = container_namespace(container_id)
    if namespaces.exists(own):
        # At once: the kernel would clear the link away only some time after its namespace.
        namespaces.remove_interface(_INTERFACE, own)
    namespaces.delete(own)


def ensure_addresses(bazaar: str, addresses: Iterable[str]) -> None:
    """Give the front these addresses, beside those it has."""
    lines = [
        f"address replace {IPv4Address(one)}/32 dev {UPLINK}" for one in sorted(set(addresses))
    ]
    namespaces.batch(lines, front_namespace(bazaar))


def remove_addresses(bazaar: str, *, keep: Iterable[str]) -> None:
    """Take all service addresses from the front but those of ``keep``."""
    kept = set(keep)
    front = front_namespace(bazaar)
    lines = [
        f"address delete {entry['local']}/32 dev {UPLINK}"
        for link in namespaces.query(f"address show dev {UPLINK}", front)
        for entry in link.get("addr_info", [])
        if entry.get("prefixlen") == 32 and entry["local"] not in kept
    ]
    namespaces.batch(lines, front)


def remove_all(bazaar: str) -> None:
    """Take everything of a bazaar's network away, whatever an interruption left of it."""
    front = front_namespace(bazaar)
    for name in namespaces.entries(front):
        if not namespaces.exists(name):  # or another bazaar's, whose name is just being made
            namespaces.delete(name, bare=True)
        elif belongs(name, bazaar):
            namespaces.delete(name)
    namespaces.remove_interface(host_interface(bazaar))
    outbound.forbid(f"bazaar_{bazaar}")
    namespaces.tidy()


def _site_link(bazaar: str, site: str) -> str:
    return namespaces.interface_name("site", bazaar, site)


def _bridge_address(namespace: str) -> IPv4Address:
    for link in namespaces.query(f"address show dev {_BRIDGE}", namespace):
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet":
                return IPv4Address(str(entry["local"]))
    raise NetworkError(f"the site's namespace {namespace} has no gateway address")


def _check_mark(namespace: str, mark: str) -> None:
    """Refuse a namespace of this name that is somebody else's."""
    found = mark_of(namespace)
    if found != mark:
        whose = f"it is marked {found!r}" if found else "Bazaar did not make it"
        raise NetworkError(
            f"the network namespace {namespace} is in the way: {whose}",
            hint=f"choose another name, or remove it: ip netns delete {namespace}",
        )
