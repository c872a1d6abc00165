"""Drill: a flood at the front door, with the shield, without it, and with nftables instead."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.errors import UsageError
from bazaar.model.figure import Figure
from bazaar.up import client


def measure(bazaar: str, progress: Callable[[str], None]) -> list[Figure]:
    """Requests a second and their p99 while a million packets a second come in beside them."""
    from bazaar.shield import guard
    from bazaar.shield import measure as flood
    from bazaar.site import network

    status = client.call(bazaar, "status")
    service = next(
        (s for s in status["services"] if s["url"] and s["url"].startswith("http:")), None
    )
    found = guard.find(bazaar)
    if service is None or found is None:
        lacking = "an HTTP service" if service is None else "a shield"
        raise UsageError(f"drill flood needs {lacking}; bazaar {bazaar} has none")
    try:
        samples = flood.flood(
            _arena(bazaar),
            found,
            network.front_namespace(bazaar),
            service["url"],
            service["address"],
            progress=progress,
        )
    finally:
        found.close()
    return flood.figures(samples, note=flood.clients(found.spec, allowed=True))


def remove(bazaar: str) -> None:
    """Take away what a drill that was killed left behind."""
    from bazaar.shield import arena

    arena.remove(_arena(bazaar))


def _arena(bazaar: str) -> str:
    return f"drill-{bazaar}"
