"""Drill: a flood at the front door, with the shield, without it, and with nftables instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    found.close()
    # A shield of the drill's own: what guards the bazaar's real clients stays as it is.
    served = {s["port"] for s in status["services"] if s["port"] is not None}
    ports = tuple(("tcp", port) for port in sorted(served))
    front = network.front_namespace(bazaar)
    own = guard.attach(_arena(bazaar), replace(found.spec, mode="on", ports=ports), (), front)
    try:
        samples = flood.flood(
            _arena(bazaar), own, front, service["url"], service["address"], progress=progress
        )
    finally:
        own.detach()
    return flood.figures(samples, note=flood.clients(own.spec, allowed=True))


def remove(bazaar: str) -> None:
    """Take away what a drill that was killed left behind."""
    from bazaar.shield import arena, pinned

    arena.remove(_arena(bazaar))
    pinned.discard(_arena(bazaar))


def _arena(bazaar: str) -> str:
    return f"drill-{bazaar}"
