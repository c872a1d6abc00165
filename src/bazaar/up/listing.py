"""The bazaars that have a state on this machine, and how each is, as `bazaar list` shows them."""

from __future__ import annotations

import time
from typing import Any

from bazaar.errors import StateError
from bazaar.host import paths
from bazaar.up import client

_PATIENCE = 5.0  # seconds a supervisor may take to answer


def bazaars() -> list[dict[str, Any]]:
    """Every bazaar by name: what its supervisor says, else what its folder holds.

    ``state`` is up, down (it was made and nobody supervises it, as after a reboot), or volumes
    (it was taken down, its volumes were kept). What only a supervisor knows is None without one.
    """
    folder = paths.state() / "bazaars"
    names = sorted(entry.name for entry in folder.glob("*") if entry.is_dir())
    return [found for found in map(_one, names) if found is not None]


def _one(name: str) -> dict[str, Any] | None:
    folder = paths.bazaar(name)
    volumes = sorted(entry.name for entry in (folder / "volumes").glob("*"))
    made = client.has_state(name)
    if not made and not volumes:
        return None
    found: dict[str, Any] = {
        "name": name,
        "state": "down" if made else "volumes",
        "since": None,
        "healthy": None,
        "wanted": None,
        "volumes": volumes,
        "folder": str(folder),
    }
    if made:
        try:
            status = client.call(name, "status", timeout=_PATIENCE)
        except StateError:
            return found
        found["state"] = "up"
        found["since"] = round(time.time() - status["seconds"], 3)
        for key in ("healthy", "wanted"):
            found[key] = sum(service[key] for service in status["services"])
    return found
