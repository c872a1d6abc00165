"""Containers: images, engines, and running one in the foreground or detached.

images       a reference becomes layers on this machine (deb, oci, dir, docker)
engines      gvisor: a kernel of its own; shared: the host's
rootfs       layers mounted over one another; looks inside that no link can lead astray
bundle       the OCI configuration an engine reads
launch       one container's processes: start, end, clearing up
shim         the process beside a detached container
containers   all of them, by id
interactive  in the foreground: streams, terminal, signals, exit codes; exec
"""

from __future__ import annotations

from bazaar.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bazaar.run.interactive import execute, foreground

__all__ = ["execute", "foreground"]


def __getattr__(name: str) -> Any:
    # Lazily: a container's shim imports this package too, and needs little of it.
    if name in __all__:
        from bazaar.run import interactive

        return getattr(interactive, name)
    raise AttributeError(f"module 'bazaar.run' has no attribute {name!r}")
