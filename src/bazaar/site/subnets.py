"""Which address range a bazaar may take.

A bazaar has a /16, say 10.44.0.0/16: 10.44.0.0/24 is its front (.1 the host's side, .2 the
front's own, .10 and up the services), 10.44.N.0/24 its N-th site (.1 the gateway).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import NetworkError
from bazaar.host import ranges
from bazaar.host.ranges import Taken

FIRST, LAST = 44, 254  # of 10.X.0.0/16


def parse(subnet: str, prefix: int) -> IPv4Network:
    """A subnet of exactly this prefix length, or NetworkError."""
    try:
        network = IPv4Network(subnet)
    except ValueError as error:
        raise NetworkError(f"{subnet!r} is no subnet: {error}") from None
    if network.prefixlen != prefix:
        raise NetworkError(f"{subnet} is a /{network.prefixlen}; a /{prefix} is needed here")
    return network


def host_side(subnet: IPv4Network) -> IPv4Address:
    """The host's end of the front's uplink."""
    return subnet[1]


def front_gateway(subnet: IPv4Network) -> IPv4Address:
    """The front's own address: the sites' way out, and where names are answered."""
    return subnet[2]


def choose_subnet(preferred: str | None = None, *, bazaar: str | None = None) -> str:
    """A free /16: ``preferred``, or the first from 10.44.0.0 on.

    What ``bazaar`` holds already is free for it, and is what it gets when nothing is
    preferred. NetworkError names who has a range that is taken.
    """
    used = ranges.taken()
    own = [entry for entry in used if bazaar and entry.bazaar == bazaar]
    others = [entry for entry in used if entry not in own]
    if preferred is not None:
        network = parse(preferred, 16)
        for entry in others:
            if entry.network.overlaps(network):
                raise _taken(network, entry)
        return str(network)
    for entry in own:
        if entry.network.prefixlen == 16:
            return str(entry.network)
    return str(first_free(others))


def first_free(used: list[Taken], *, descending: bool = False) -> IPv4Network:
    """The first /16 that overlaps none of ``used``; NetworkError when all are taken."""
    for number in sorted(range(FIRST, LAST + 1), reverse=descending):
        network = IPv4Network(f"10.{number}.0.0/16")
        if not any(entry.network.overlaps(network) for entry in used):
            return network
    raise NetworkError(
        f"no /16 between 10.{FIRST}.0.0 and 10.{LAST}.0.0 is free on this machine",
        hint="name one that is: `subnet: 172.20.0.0/16` in the bazaar's description",
    )


def _taken(network: IPv4Network, entry: Taken) -> NetworkError:
    return NetworkError(
        f"the subnet {network} is taken: {entry.holder} has {entry.network}",
        hint="choose another `subnet`, or leave it out: a free one is found",
    )
