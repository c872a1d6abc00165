"""Where floods are measured: namespaces of our own around a front door that exists.

Legitimate clients and the attacker each come by a veth of their own into the namespace of
the front door; a sink stands elsewhere, for floods that are to cost the same and hit nobody.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Generator
from dataclasses import dataclass

from bazaar.errors import NetworkError
from bazaar.host import namespaces
from bazaar.shield import devices

# RFC 2544 keeps 198.18.0.0/15 for benchmarks: the upper half is for the links, the lower
# half for the flood's sources.
_LINKS = ipaddress.IPv4Network("198.19.0.0/24")
SOURCES = "198.18.0.0/16"
_OUTSIDE = "uplink"  # the clients' and the attacker's name of their interface


@dataclass(frozen=True, slots=True)
class Link:
    """A veth from a namespace of ours to the front door (or the sink)."""

    namespace: str  # the far one
    interface: str  # its name there
    address: str  # and its address
    door_namespace: str
    door_interface: str
    door_address: str
    door_mac: str


@dataclass(frozen=True, slots=True)
class Arena:
    """All of it, ready for packets."""

    front: str  # the namespace of the front door
    client: Link
    attacker: Link
    decoy: Link  # sends to the sink instead of the front door


@contextlib.contextmanager
def build(name: str, front: str, targets: list[str]) -> Generator[Arena]:
    """Make the arena around the namespace ``front``; ``targets`` are the addresses served there.

    ``name`` keeps arenas apart. All is taken away when the block is left; what a process that
    was killed left of an arena of that name, before this one is made.
    """
    remove(name)
    places = _places(name)
    doors = {"client": front, "attacker": front, "decoy": places["sink"]}
    ends = {part: namespaces.interface_name("arena", name, part) for part in doors}
    subnets = dict(zip(doors, _LINKS.subnets(new_prefix=30), strict=False))
    try:
        for place in places.values():
            if not namespaces.create(place, mark=_mark(name)):
                raise NetworkError(f"the network namespace {place} is somebody else's")
        links = {
            part: _wire(places[part], doors[part], ends[part], subnets[part], targets)
            for part in doors
        }
        # Answers to the flood find a way: the kernel is to work as it would on a real uplink.
        attacker = links["attacker"]
        namespaces.sysctl(f"net/ipv4/conf/{attacker.door_interface}/rp_filter", "0", front)
        namespaces.batch(
            [f"route replace {SOURCES} via {attacker.address} dev {attacker.door_interface}"], front
        )
        yield Arena(front, links["client"], attacker, links["decoy"])
    finally:
        remove(name)


def remove(name: str) -> None:
    """Take away what is left of the arena ``name``: its namespaces and the veths out of them.

    They are known by their mark: a namespace of that name which somebody else made stays.
    """
    for place in _places(name).values():
        if namespaces.exists(place):
            if namespaces.links(place).get("lo", {}).get("ifalias") != _mark(name):
                continue
            # By itself: a client that still runs there would keep it, and its other end.
            namespaces.remove_interface(_OUTSIDE, place)
        namespaces.delete(place)


def _places(name: str) -> dict[str, str]:
    return {part: f"bz-{name}-{part}" for part in ("client", "attacker", "decoy", "sink")}


def _mark(name: str) -> str:
    return f"bazaar arena {name}"


def _wire(
    outside: str, door: str, end: str, subnet: ipaddress.IPv4Network, targets: list[str]
) -> Link:
    inner, outer = (str(host) for host in subnet.hosts())
    namespaces.remove_interface(end, door)  # of a run that was killed
    namespaces.batch(
        [
            namespaces.veth(end, _OUTSIDE, outside),
            f"address add {inner}/{subnet.prefixlen} dev {end}",
        ],
        door,
    )
    namespaces.batch(
        [
            f"link set {_OUTSIDE} up",
            f"address add {outer}/{subnet.prefixlen} dev {_OUTSIDE}",
            *(f"route add {target}/32 via {inner}" for target in targets),
        ],
        outside,
    )
    # Frames from the generator arrive only so where no program is attached.
    devices.receive_offload(end, True, door)
    mac = devices.mac(end, door).hex(":")
    return Link(outside, _OUTSIDE, outer, door, end, inner, mac)
