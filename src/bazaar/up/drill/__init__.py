"""Drills: each measures one headline claim on a bazaar that is up, and changes nothing."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from bazaar.errors import BazaarError, UsageError
from bazaar.model.figure import Figure
from bazaar.up import client

Progress = Callable[[str], None]
DRILLS = ("boot", "trace", "flood", "site", "crash")
PATIENCE = 30.0  # seconds


def choose(names: Sequence[str]) -> list[str]:
    """The drills that these names mean. Raises UsageError for a name that is none."""
    unknown = [name for name in names if name not in (*DRILLS, "all")]
    if unknown:
        raise UsageError(
            f"there is no drill '{unknown[0]}'", hint=f"there are: all, {', '.join(DRILLS)}"
        )
    return list(DRILLS) if "all" in names or not names else list(names)


def run(
    bazaar: str, names: Sequence[str], progress: Progress, *, site: str | None = None
) -> list[Figure]:
    """Run drills by name (``all`` is every one, in order) and return what they measured.

    ``site`` is the one that the drill of that name loses; by default one that others replace.

    What they need of this machine is installed where it can be. One of several that cannot be
    measured is a figure without a value that says why.
    """
    chosen = choose(names)
    if "flood" in chosen:
        from bazaar.up import doctor

        doctor.ensure(doctor.needs(("drill",)), progress)
    figures: list[Figure] = []
    healthy = _healthy(bazaar)
    for name in chosen:
        module: Any = importlib.import_module(f"bazaar.up.drill.{name}")
        progress(f"drill {name}")
        try:
            chosen_site = {"site": site} if name == "site" else {}
            figures += module.measure(bazaar, _prefixed(name, progress), **chosen_site)
        except BazaarError as error:
            if len(chosen) == 1:
                raise
            figures.append(_missing(name, error))
        _settle(bazaar, healthy)
    return figures


def _settle(bazaar: str, healthy: set[str]) -> None:
    """Wait until the replicas that were healthy before are so again, for whatever comes next.

    A flood without a shield starves the health checks of a slow machine too.
    """
    deadline = time.monotonic() + PATIENCE
    while not healthy <= _healthy(bazaar) and time.monotonic() < deadline:
        time.sleep(0.1)


def _healthy(bazaar: str) -> set[str]:
    try:
        status = client.call(bazaar, "status")
    except BazaarError:
        return set()  # each drill tells by itself what that means for it
    return {r["id"] for service in status["services"] for r in service["replicas"] if r["healthy"]}


def _missing(name: str, error: BazaarError) -> Figure:
    note = "; ".join(filter(None, (error.message, error.hint)))
    return Figure(name, None, "", goal="can be measured", holds=False, note=note)


def _prefixed(name: str, progress: Progress) -> Progress:
    return lambda text: progress(f"drill {name}: {text.removeprefix(f'{name}: ')}")
