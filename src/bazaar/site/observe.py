"""What exists of a bazaar's network, read back from the kernel."""

from __future__ import annotations

from bazaar.host import namespaces
from bazaar.model.record import field, record
from bazaar.model.site import Attachment
from bazaar.site.naming import UPLINK, front_namespace, host_name
from bazaar.typed import Any


@record
class ObservedSite:
    """A site's namespace, and the containers wired into it by id."""

    name: str
    namespace: str
    subnet: str  # empty when its bridge is missing
    joined: bool  # False: cut off from the front
    attachments: dict[str, Attachment] = field(default_factory=dict[str, Attachment])


@record
class Observed:
    """The whole: ``front`` is None when there is none; ``strays`` belong to no site."""

    front: str | None  # the namespace
    subnet: str  # of the bazaar; empty without a front
    addresses: tuple[str, ...]  # of services, at the front
    sites: dict[str, ObservedSite]
    strays: tuple[str, ...]  # container namespaces without a link into a site

    @property
    def attachments(self) -> dict[str, Attachment]:
        """All containers' attachments by container id."""
        return {key: one for site in self.sites.values() for key, one in site.attachments.items()}


def observed(bazaar: str) -> Observed:
    """Read what exists of a bazaar: its front, its sites, the containers wired into them."""
    own = front_namespace(bazaar)
    front: str | None = None
    subnet, addresses = "", ()
    sites: dict[str, ObservedSite] = {}
    containers: list[str] = []
    for name in namespaces.names(own):
        if name.startswith(f"{own}."):
            containers.append(name)
            continue
        if name != own and not name.startswith(f"{own}-"):
            continue
        links = namespaces.links(name)
        mark = _mark(links.get("lo", {}))
        if mark == ["bazaar", "front", bazaar]:
            front = name
            found = _addresses(links.get(UPLINK, {}))
            subnet = next((_subnet(one, 16) for one, prefix in found if prefix == 24), "")
            addresses = tuple(one for one, prefix in found if prefix == 32)
        elif mark[:3] == ["bazaar", "site", bazaar] and len(mark) == 4:
            sites[mark[3]] = _site(mark[3], name, links)
    wired = {one.namespace for site in sites.values() for one in site.attachments.values()}
    own_containers = [name for name in containers if name != host_name(bazaar)]
    strays = tuple(name for name in own_containers if name not in wired)
    return Observed(front, subnet, addresses, sites, strays)


def mark_of(namespace: str) -> str:
    """What the namespace was made as; empty for one that Bazaar did not make."""
    for link in namespaces.query("link show dev lo", namespace):
        return str(link.get("ifalias", ""))
    return ""


def belongs(namespace: str, bazaar: str) -> bool:
    """Whether a namespace was made for this bazaar."""
    if namespace == host_name(bazaar):
        return True
    match mark_of(namespace).split():
        case ["bazaar", "front" | "site", owner, *_]:
            return owner == bazaar
        case ["bazaar", "container", identity, *_]:
            return identity.startswith(f"{bazaar}.")
        case _:
            return False


def _site(name: str, namespace: str, links: dict[str, dict[str, Any]]) -> ObservedSite:
    gateway = next((one for one, _ in _addresses(links.get("bridge", {}))), "")
    attachments: dict[str, Attachment] = {}
    for link in links.values():
        mark = _mark(link)
        if mark[:2] == ["bazaar", "container"] and len(mark) == 4 and link.get("master"):
            own = f"bz-{mark[2]}"
            if namespaces.exists(own):
                attachments[mark[2]] = Attachment(own, mark[3], gateway)
    joined = "UP" in links.get("front", {}).get("flags", [])
    return ObservedSite(name, namespace, _subnet(gateway, 24), joined, attachments)


def _mark(link: dict[str, Any]) -> list[str]:
    return str(link.get("ifalias", "")).split()


def _addresses(link: dict[str, Any]) -> list[tuple[str, int]]:
    return [
        (str(entry["local"]), int(entry["prefixlen"]))
        for entry in link.get("addr_info", [])
        if entry.get("family") == "inet"
    ]


def _subnet(address: str, prefix: int) -> str:
    from ipaddress import IPv4Network

    return str(IPv4Network(f"{address}/{prefix}", strict=False)) if address else ""
