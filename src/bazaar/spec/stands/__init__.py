"""The catalogue of ready-made services: one YAML file a stand, named by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bazaar.errors import UsageError
from bazaar.model.site import Health

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Reading:
    """A document worth reading about a technology."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Stand:
    """A technology of the bazaar, who makes it, and how it runs here."""

    name: str
    summary: str
    technology: str
    organisation: str
    licence: str  # SPDX
    home: str
    image: str
    command: tuple[str, ...]
    port: int | None = None
    mode: str = "tcp"  # http | tcp
    health: Health = field(default_factory=Health)
    kernel: str = "own"  # own | shared
    stateful: bool = False  # its replicas do not replicate: never more than one
    volume: str = ""  # where its data is, inside
    environment: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()  # variables it understands, and what for
    user: str = ""
    read: tuple[Reading, ...] = ()


@cache
def names() -> tuple[str, ...]:
    """All stands' names, in order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def get(name: str) -> Stand:
    """The stand of this name. Raises UsageError that names the nearest one."""
    if name not in names():
        from bazaar.spec import values

        near = values.meant(name, names()) or f" There are: {', '.join(names())}"
        raise UsageError(f"there is no stand {values.show(name)}.{near}")
    from bazaar.spec.text import parse

    path = FOLDER / f"{name}.yaml"
    given: dict[str, Any] = parse(path.read_text(), str(path)).value
    health = Health(
        kind=given.get("mode", "tcp") if given.get("port") else "none",
        path=given.get("health_path", "/"),
        start_period=float(given.get("start_period", 60)),
    )
    return Stand(
        name=name,
        summary=given["summary"],
        technology=given["technology"],
        organisation=given["organisation"],
        licence=given["licence"],
        home=given["home"],
        image=given["image"],
        command=tuple(given["command"]),
        port=given.get("port"),
        mode=given.get("mode", "tcp"),
        health=health,
        kernel=given.get("kernel", "own"),
        stateful=given.get("stateful", False),
        volume=given.get("volume", ""),
        environment=tuple((k, str(v)) for k, v in given.get("environment", {}).items()),
        settings=tuple(given.get("settings", {}).items()),
        user=given.get("user", ""),
        read=tuple(Reading(title, url) for title, url in given["read"].items()),
    )


def catalogue() -> tuple[Stand, ...]:
    """Every stand."""
    return tuple(get(name) for name in names())
