"""Class Bazaar and its parts: loading, checking, resolving, schema, and the stands' catalogue.

A description goes `loader → text → validate → rules` and becomes a checked Bazaar;
`resolver` fills in what stands and defaults say. `resolved` is plain values that need
none of this to be read back.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bazaar.spec.cluster import Cluster, Machine, Proxy
    from bazaar.spec.dump import to_mapping, to_yaml
    from bazaar.spec.json_schema import schema
    from bazaar.spec.loader import load, loads
    from bazaar.spec.model import (
        Bazaar,
        File,
        Health,
        Probe,
        Restart,
        Secret,
        Service,
        Shield,
        Site,
        Volume,
    )
    from bazaar.spec.resolver import resolve
    from bazaar.spec.validate import check

_PLACES = {
    "load": "loader",
    "loads": "loader",
    "check": "validate",
    "resolve": "resolver",
    "schema": "json_schema",
    "to_mapping": "dump",
    "to_yaml": "dump",
    "Cluster": "cluster",
    "Machine": "cluster",
    "Proxy": "cluster",
} | dict.fromkeys(
    (
        "Bazaar",
        "File",
        "Health",
        "Probe",
        "Restart",
        "Secret",
        "Service",
        "Shield",
        "Site",
        "Volume",
    ),
    "model",
)

__all__ = [
    "Bazaar",
    "Cluster",
    "File",
    "Health",
    "Machine",
    "Probe",
    "Proxy",
    "Restart",
    "Secret",
    "Service",
    "Shield",
    "Site",
    "Volume",
    "check",
    "load",
    "loads",
    "resolve",
    "schema",
    "to_mapping",
    "to_yaml",
]


def __getattr__(name: str) -> Any:
    # Lazily: the supervisor reads `resolved` alone, without pydantic (PEP 562).
    if name in _PLACES:
        return getattr(importlib.import_module(f"bazaar.spec.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'bazaar.spec' has no attribute {name!r}")
