"""Which address everything has: decided once, remembered, pure.

A bazaar has a /16. The first /24 holds the services' front addresses from .10 on, each
site has one of the following /24s, in which its replicas stand from .10 on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from bazaar.errors import NetworkError

HOSTS = range(10, 251)
HINT = "`bazaar down` first: what runs keeps its addresses until then"


@dataclass(frozen=True, slots=True)
class Layout:
    """A bazaar's numbers: its /16, each site's /24, the last octet of each front."""

    subnet: str
    sites: dict[str, str] = field(default_factory=dict[str, str])
    fronts: dict[str, int] = field(default_factory=dict[str, int])

    def front(self, service: str) -> str:
        """The one address of a service."""
        return str(_network(self.subnet)[self.fronts[service]])

    def free_address(self, site: str, taken: Collection[str]) -> str:
        """The lowest address of a site that no replica has."""
        network = _network(self.sites[site])
        for host in HOSTS:
            address = str(network[host])
            if address not in taken:
                return address
        raise NetworkError(
            f"site {site}: all {len(HOSTS)} addresses of {network} are taken",
            hint="lower the replicas, or spread them over more sites",
        )

    def to_json(self) -> dict[str, Any]:
        """For the state folder."""
        return {"subnet": self.subnet, "sites": self.sites, "fronts": self.fronts}


def from_json(value: dict[str, Any]) -> Layout:
    """Read back what `Layout.to_json` wrote."""
    return Layout(value["subnet"], dict(value["sites"]), dict(value["fronts"]))


def extend(layout: Layout, sites: Mapping[str, str | None], fronts: Iterable[str]) -> Layout:
    """The layout of these sites (with the /24 each asks for, if any) and fronts: what stays
    keeps its numbers, what is new gets the lowest free ones.

    Raises NetworkError where a site asks for another network than it has, or for another's.
    """
    places: dict[str, str] = {}
    for name, asked in sites.items():
        if asked is not None:
            _check_asked(layout, name, asked)
        if (subnet := asked or layout.sites.get(name)) is not None:
            places[name] = subnet
    free = (
        str(subnet)
        for subnet in islice(_network(layout.subnet).subnets(new_prefix=24), 1, None)
        if str(subnet) not in places.values()
    )
    for name in sites:
        if name not in places:
            places[name] = _next(free, name)
    known = {name: layout.fronts[name] for name in fronts if name in layout.fronts}
    numbers = (number for number in HOSTS if number not in known.values())
    return replace(
        layout,
        sites={name: places[name] for name in sites},
        fronts={name: known[name] if name in known else _next(numbers, name) for name in fronts},
    )


def _check_asked(layout: Layout, name: str, asked: str) -> None:
    held = layout.sites.get(name, asked)
    if held != asked:
        raise NetworkError(
            f"sites.{name}.subnet: the site is up with {held}, not {asked}", hint=HINT
        )
    for other, subnet in layout.sites.items():
        if subnet == asked and other != name:
            raise NetworkError(
                f"sites.{name}.subnet: the site {other} is up with {asked}",
                hint=f"take another; or {HINT}",
            )


def _network(subnet: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(subnet)


Number = TypeVar("Number")


def _next(free: Iterator[Number], name: str) -> Number:
    number = next(free, None)
    if number is None:
        raise NetworkError(f"{name}: no more of its kind fit into one bazaar")
    return number
