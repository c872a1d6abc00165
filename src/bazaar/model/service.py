"""A bazaar as it is wanted, every default and stand filled in: what `up` makes real.

Made by `spec.resolve`; read back from JSON by the supervisor without pydantic. Secrets are
references here, never values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bazaar.model.container import Limits
from bazaar.model.site import Health, Publish


@dataclass(frozen=True, slots=True)
class Value:
    """What an environment variable or file holds: one of the three is set."""

    text: str | None = None
    file: str | None = None  # absolute path of the host, read at `up`
    environment: str | None = None  # variable of whoever calls `up`


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A named volume, or a directory of the host (absolute), seen at ``target``."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """One service, complete."""

    name: str
    image: str
    engine: str  # gvisor | shared
    sites: tuple[str, ...]
    replicas: int = 1  # in each site
    stand: str | None = None
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    port: int | None = None
    mode: str = "tcp"  # http | tcp
    health: Health = field(default_factory=Health)
    environment: tuple[tuple[str, Value], ...] = ()
    files: tuple[tuple[str, Value], ...] = ()  # path inside → content
    volumes: tuple[VolumeMount, ...] = ()
    limits: Limits = field(default_factory=Limits)
    publish: tuple[Publish, ...] = ()
    certificate: str | None = None
    nearest: str | None = None
    working_directory: str | None = None
    user: str | None = None
    stateful: bool = False
    restart_first: float = 0.1  # seconds
    restart_longest: float = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """One site."""

    name: str
    provider: str = "local"
    subnet: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """One trace program."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Guard:
    """The shield at the front door."""

    rate: float  # packets a second of one source
    burst: int
    allow: tuple[str, ...] = ()
    block_seconds: float = 60.0
    mode: str = "on"  # on | dry-run | off


@dataclass(frozen=True, slots=True)
class Wanted:
    """The whole."""

    name: str
    subnet: str | None = None
    sites: tuple[Place, ...] = ()
    services: tuple[Service, ...] = ()
    probes: tuple[Probe, ...] = ()
    shield: Guard | None = None


def to_json(wanted: Wanted) -> dict[str, Any]:
    """As plain JSON values."""
    return asdict(wanted)


def from_json(value: dict[str, Any]) -> Wanted:
    """Read back what `to_json` gave."""
    shield = value["shield"]
    return Wanted(
        name=value["name"],
        subnet=value["subnet"],
        sites=tuple(Place(**site) for site in value["sites"]),
        services=tuple(_service(service) for service in value["services"]),
        probes=tuple(Probe(**probe) for probe in value["probes"]),
        shield=Guard(**{**shield, "allow": tuple(shield["allow"])}) if shield else None,
    )


def _service(value: dict[str, Any]) -> Service:
    entrypoint = value["entrypoint"]
    return Service(
        **{
            **value,
            "sites": tuple(value["sites"]),
            "command": tuple(value["command"]),
            "entrypoint": None if entrypoint is None else tuple(entrypoint),
            "health": Health(**value["health"]),
            "environment": tuple((name, Value(**of)) for name, of in value["environment"]),
            "files": tuple((path, Value(**of)) for path, of in value["files"]),
            "volumes": tuple(VolumeMount(**volume) for volume in value["volumes"]),
            "limits": Limits(**value["limits"]),
            "publish": tuple(Publish(**publish) for publish in value["publish"]),
        }
    )
