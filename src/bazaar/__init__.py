"""One description of a bazaar of open source technology, and one command that runs it."""

from __future__ import annotations

from bazaar.typed import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bazaar.spec import Bazaar, Cluster, Machine, Probe, Proxy, Service, Shield, Site, Volume

__all__ = [
    "Bazaar",
    "Cluster",
    "Machine",
    "Probe",
    "Proxy",
    "Service",
    "Shield",
    "Site",
    "Volume",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Lazily, so that `import bazaar` costs no pydantic (PEP 562).
    if name in __all__:
        from bazaar import spec

        return getattr(spec, name)
    raise AttributeError(f"module 'bazaar' has no attribute {name!r}")
