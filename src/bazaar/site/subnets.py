"""Which address ranges this machine uses already, and which a bazaar may take.

A bazaar has a /16, say 10.44.0.0/16: 10.44.0.0/24 is its front (.1 the host's side, .2 the
front's own, .10 and up the services), 10.44.N.0/24 its N-th site (.1 the gateway).
"""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from bazaar.errors import NetworkError
from bazaar.host import namespaces
from bazaar.model.record import record

FIRST, LAST = 44, 254  # of 10.X.0.0/16


@record
class Taken:
    """A range in use, and by whom."""

    network: IPv4Network
    interface: str
    holder: str  # for people: "interface eth0", "the bazaar fosdem"
    bazaar: str = ""


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


def taken(
    links: dict[str, dict[str, Any]] | None = None, routes: list[dict[str, Any]] | None = None
) -> list[Taken]:
    """Every IPv4 range this machine has an address in, a route to, or a name server at.

    ``links`` and ``routes`` are the host's, where the caller has just read them.
    """
    found: list[Taken] = []
    holders: dict[str, tuple[str, str]] = {}
    if links is None or routes is None:
        links, routes = namespaces.links_and_routes()
    for device, link in links.items():
        mark = str(link.get("ifalias", "")).split()
        bazaar = mark[2] if mark[:2] == ["bazaar", "front"] and len(mark) == 3 else ""
        holder = f"the bazaar {bazaar}" if bazaar else f"interface {device}"
        if mark[:2] == ["bazaar", "run"]:
            holder = "the network of `bazaar run`"
        holders[device] = holder, bazaar
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet":
                network = IPv4Network(f"{entry['local']}/{entry['prefixlen']}", strict=False)
                found.append(Taken(network, device, holder, bazaar))
    for route in routes:
        if route.get("dst") in (None, "default") or "dev" not in route:
            continue
        device = str(route["dev"])
        holder, bazaar = holders.get(device, (f"a route by {device}", ""))
        with contextlib.suppress(ValueError):
            found.append(Taken(IPv4Network(str(route["dst"])), device, holder, bazaar))
    return [*found, *_name_servers()]


def choose_subnet(preferred: str | None = None, *, bazaar: str | None = None) -> str:
    """A free /16: ``preferred``, or the first from 10.44.0.0 on.

    What ``bazaar`` holds already is free for it, and is what it gets when nothing is
    preferred. NetworkError names who has a range that is taken.
    """
    ranges = taken()
    own = [entry for entry in ranges if bazaar and entry.bazaar == bazaar]
    others = [entry for entry in ranges if entry not in own]
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


def first_free(ranges: list[Taken], *, descending: bool = False) -> IPv4Network:
    """The first /16 that overlaps none of ``ranges``; NetworkError when all are taken."""
    for number in sorted(range(FIRST, LAST + 1), reverse=descending):
        network = IPv4Network(f"10.{number}.0.0/16")
        if not any(entry.network.overlaps(network) for entry in ranges):
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


def _name_servers() -> list[Taken]:
    found: list[Taken] = []
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["nameserver"] and len(words) > 1:
                with contextlib.suppress(ValueError):
                    found.append(Taken(IPv4Network(words[1]), "", f"name server {words[1]}"))
    return found
