"""Engines: programs that make a container of an OCI bundle, behind one protocol.

`gvisor` gives a container a kernel of its own, `shared` the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bazaar.errors import UsageError
from bazaar.model.record import record
from bazaar.typed import Protocol

Progress = Callable[[str], None]


@record
class EngineStatus:
    """One engine as this machine has it."""

    name: str  # gvisor | shared
    isolation: str  # what stands between the container and the host, in words
    path: Path | None = None
    problem: str | None = None  # why it cannot be used now; None when it can
    hint: str | None = None


class Engine(Protocol):
    """What the rest of `run` needs of an engine: the words of the OCI runtime command line."""

    name: str
    isolation: str
    # Whether it puts the container into its control groups itself; else its process is put there.
    own_cgroups: bool

    def status(self) -> EngineStatus:
        """What is there, without getting anything."""
        raise NotImplementedError

    def ensure(self, progress: Progress) -> Path:
        """The program, got when it is not there. Raises MissingError."""
        raise NotImplementedError

    def command(self, folder: Path, *, network: bool) -> list[str]:
        """The program and its global options for the container kept in ``folder``."""
        raise NotImplementedError


NAMES = ("gvisor", "shared")


def get(name: str) -> Engine:
    """The engine of that name. Raises UsageError for an unknown one."""
    if name == "gvisor":
        from bazaar.run.engines.gvisor import GVisor

        return GVisor()
    if name == "shared":
        from bazaar.run.engines.shared import Shared

        return Shared()
    raise UsageError(f"there is no engine '{name}'", hint=f"engines: {', '.join(NAMES)}")


def available() -> list[EngineStatus]:
    """Every engine, and what keeps it from being used here."""
    return [get(name).status() for name in NAMES]


def ensure(name: str, progress: Progress) -> Path:
    """Get the engine's program if need be; its path."""
    return get(name).ensure(progress)
