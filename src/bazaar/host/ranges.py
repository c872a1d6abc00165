"""Which address ranges this machine uses already."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Network

from bazaar.host import namespaces, resolvers
from bazaar.model.record import record
from bazaar.typed import Any


@record
class Taken:
    """A range in use, and by whom."""

    network: IPv4Network
    interface: str
    holder: str  # for people: "interface eth0", "the bazaar fosdem"
    bazaar: str = ""


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


def _name_servers() -> list[Taken]:
    found: list[Taken] = []
    for server in resolvers.listed():
        with contextlib.suppress(ValueError):
            found.append(Taken(IPv4Network(server), "", f"name server {server}"))
    return found
