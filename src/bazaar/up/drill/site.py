"""Drill: a whole site is lost while clients go on asking, and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bazaar.errors import UsageError
from bazaar.model.figure import Figure
from bazaar.up import client
from bazaar.up.drill.clients import Clients, failures

PATIENCE = 30.0  # seconds
CLIENTS = 4


def measure(bazaar: str, progress: Callable[[str], None], site: str | None = None) -> list[Figure]:
    """Seconds to fail over, lost requests, seconds to the full balance after the return."""
    status = client.call(bazaar, "status")
    site, targets = _choose(status, site)
    with Clients(targets, count=CLIENTS) as clients:
        time.sleep(1.0)
        progress(f"{site} is cut off")
        cut = time.monotonic()
        _cut(bazaar, site)
        try:
            gone = _until(bazaar, lambda now: not _any_healthy(now, site))
            failover = time.monotonic() - cut
            time.sleep(1.0)
        finally:
            _join(bazaar, site)
        progress(f"{site} is back")
        back = time.monotonic()
        whole = _until(bazaar, _all_healthy)
        returned = time.monotonic() - back
        time.sleep(0.5)
    # By when it was asked: what hung since the cut may fail after the return.
    failed = [request for request in clients.requests if request.problem]
    lost = [request for request in failed if request.ended >= cut and request.began < back]
    later = [request for request in failed if request.began >= back]
    return [
        Figure(
            "site.failover", _kept(failover, gone), "s", goal="<= 3", holds=gone and failover <= 3
        ),
        Figure(
            "site.lost",
            float(len(lost)),
            "requests",
            goal="in flight only",
            holds=len(lost) <= CLIENTS,
            note=f"{len(clients.requests)} requests by {CLIENTS} clients; {failures(lost)}".rstrip(
                "; "
            ),
        ),
        Figure(
            "site.lost_at_return",
            float(len(later)),
            "requests",
            goal="0",
            holds=not later,
            note=failures(later),
        ),
        Figure("site.return", _kept(returned, whole), "s", goal=None, holds=None),
    ]


def _choose(status: dict[str, Any], wanted: str | None) -> tuple[str, list[tuple[str, int]]]:
    """A site whose loss other sites can carry, and the fronts to ask meanwhile."""
    sites = [site["name"] for site in status["sites"]]
    if wanted is not None and wanted not in sites:
        raise UsageError(f"there is no site '{wanted}'", hint=f"there are: {', '.join(sites)}")
    spread = [
        service
        for service in status["services"]
        if service["url"]
        and service["url"].startswith("http:")
        and len({row["site"] for row in service["replicas"]}) > 1
    ]
    if not spread:
        raise UsageError(
            "drill site needs an HTTP service that runs in several sites",
            hint="give a service `sites: all` and the bazaar a second site",
        )
    alone = {row["site"] for s in status["services"] if s not in spread for row in s["replicas"]}
    # Rather the site that takes nothing with it that runs nowhere else.
    chosen = wanted or next((site for site in sites if site not in alone), sites[0])
    return chosen, [(service["address"], service["port"]) for service in spread]


def _machines(bazaar: str, site: str) -> list[str]:
    """The addresses of a site's machines; none where it is of this machine."""
    from bazaar.up import cluster_sites

    known = cluster_sites.stored(bazaar)
    return list(known[site].hosts.values()) if site in known else []


def _cut(bazaar: str, site: str) -> None:
    from bazaar.site import network

    if machines := _machines(bazaar, site):
        network.isolate_addresses(bazaar, machines)
    else:
        network.isolate(bazaar, site)


def _join(bazaar: str, site: str) -> None:
    from bazaar.site import network

    if machines := _machines(bazaar, site):
        network.restore_addresses(bazaar, machines)
    else:
        network.restore(bazaar, site)


def _rows(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for service in status["services"] for row in service["replicas"]]


def _any_healthy(status: dict[str, Any], site: str) -> bool:
    return any(row["healthy"] for row in _rows(status) if row["site"] == site)


def _all_healthy(status: dict[str, Any]) -> bool:
    return all(row["healthy"] for row in _rows(status))


def _until(bazaar: str, condition: Callable[[dict[str, Any]], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition(client.call(bazaar, "status")):
            return True
        time.sleep(0.02)
    return False


def _kept(value: float, reached: bool) -> float | None:
    return round(value, 3) if reached else None
