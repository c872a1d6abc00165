"""Which address everything has: decided once, remembered, pure.

A bazaar has a /16. The first /24 holds the services' front addresses from .10 on, each
site has one of the following /24s, in which its replicas stand from .10 on.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bazaar.errors import NetworkError

FIRST_HOST = 10
LAST_HOST = 250


@dataclass(frozen=True, slots=True)
class Layout:
    """A bazaar's numbers: its /16, the third octet of each site, the last of each front."""

    subnet: str
    sites: dict[str, int] = field(default_factory=dict[str, int])
    fronts: dict[str, int] = field(default_factory=dict[str, int])

    def _address(self, third: int, fourth: int) -> str:
        return str(ipaddress.ip_network(self.subnet).network_address + third * 256 + fourth)

    def site_subnet(self, site: str) -> str:
        """The site's network, as 10.44.1.0/24."""
        return f"{self._address(self.sites[site], 0)}/24"

    def front(self, service: str) -> str:
        """The one address of a service."""
        return self._address(0, self.fronts[service])

    def free_address(self, site: str, taken: Collection[str]) -> str:
        """The lowest address of a site that no replica has."""
        for host in range(FIRST_HOST, LAST_HOST + 1):
            address = self._address(self.sites[site], host)
            if address not in taken:
                return address
        raise NetworkError(
            f"site {site}: all {LAST_HOST - FIRST_HOST + 1} addresses of "
            f"{self.site_subnet(site)} are taken",
            hint="lower the replicas, or spread them over more sites",
        )

    def to_json(self) -> dict[str, Any]:
        """For the state folder."""
        return {"subnet": self.subnet, "sites": self.sites, "fronts": self.fronts}


def from_json(value: dict[str, Any]) -> Layout:
    """Read back what `Layout.to_json` wrote."""
    return Layout(value["subnet"], dict(value["sites"]), dict(value["fronts"]))


def extend(layout: Layout, sites: Iterable[str], fronts: Iterable[str]) -> Layout:
    """The layout of these sites and fronts: what stays keeps its number, what is new gets
    the lowest free one."""
    return replace(
        layout,
        sites=_number(layout.sites, sites, range(1, 255)),
        fronts=_number(layout.fronts, fronts, range(FIRST_HOST, LAST_HOST + 1)),
    )


def _number(known: dict[str, int], wanted: Iterable[str], numbers: range) -> dict[str, int]:
    wanted = list(dict.fromkeys(wanted))
    result = {name: known[name] for name in wanted if name in known}
    free = (number for number in numbers if number not in set(result.values()))
    for name in wanted:
        if name not in result:
            number = next(free, None)
            if number is None:
                raise NetworkError(f"{name}: no more than {len(numbers)} fit into one bazaar")
            result[name] = number
    return result
