"""A bazaar with nothing left open: what stands and defaults say is filled in.

Plain frozen values that need no pydantic and no YAML: `up` plans over them, and the supervisor
reads them back from JSON. Secrets are references, never values.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bazaar.errors import StateError
from bazaar.model.container import Limits
from bazaar.model.site import Health, Publish


@dataclass(frozen=True, slots=True)
class ResolvedSite:
    """A place where services run."""

    name: str
    provider: str = "local"
    subnet: str | None = None  # a /24; None: `up` takes a free one of the bazaar's
    cluster: str | None = None  # the name of the cluster that it is


@dataclass(frozen=True, slots=True)
class ResolvedSecret:
    """An environment variable whose value is read by `bazaar up`."""

    variable: str
    kind: str  # file | env
    source: str  # an absolute path, or a variable of whoever calls `bazaar up`


@dataclass(frozen=True, slots=True)
class ResolvedVolume:
    """Data seen inside: a named volume of the bazaar, or a directory of the host."""

    target: str
    name: str | None = None
    source: str | None = None  # an absolute path of the host
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedFile:
    """A small file put into every replica: its text, or a file of the host to copy."""

    target: str
    content: str | None = None
    source: str | None = None
    digest: str = ""  # sha256 of the content, so that a change is seen


@dataclass(frozen=True, slots=True)
class ResolvedService:
    """A service as the engines, the balance and the supervisor are to run it."""

    name: str
    image: str
    sites: tuple[str, ...]
    replicas: int = 1  # in each site
    stand: str | None = None
    kernel: str = "own"  # own | shared
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    port: int | None = None
    mode: str = "tcp"  # http | tcp
    health: Health = field(default_factory=Health)
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[ResolvedSecret, ...] = ()
    volumes: tuple[ResolvedVolume, ...] = ()
    files: tuple[ResolvedFile, ...] = ()
    limits: Limits = field(default_factory=Limits)
    publish: tuple[Publish, ...] = ()
    certificate: str | None = None  # a PEM file of the host
    certificate_digest: str = ""  # sha256 of it, so that a renewed one is seen
    nearest: str | None = None  # a site
    working_directory: str | None = None
    user: str | None = None
    restart_first: float = 0.1  # seconds before a dead replica starts again, then doubled
    restart_longest: float = 30.0
    stateful: bool = False

    @property
    def front_port(self) -> int | None:
        """Where the front listens; its replicas listen on ``port``.

        HTTP behind a certificate is HTTPS, and has HTTPS's own port.
        """
        secure = self.certificate is not None and self.mode == "http"
        return 443 if secure and self.port is not None else self.port


@dataclass(frozen=True, slots=True)
class ResolvedProbe:
    """A trace program's text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ResolvedShield:
    """What the shield is to let pass."""

    rate: float = 2000.0  # packets a second and source
    burst: int = 4000
    allow: tuple[str, ...] = ()
    block_seconds: float = 60.0
    mode: str = "on"  # on | dry-run | off


@dataclass(frozen=True, slots=True)
class ResolvedBazaar:
    """The whole."""

    name: str
    subnet: str | None = None  # a /16; None: `up` takes a free one
    sites: tuple[ResolvedSite, ...] = ()
    services: tuple[ResolvedService, ...] = ()
    probes: tuple[ResolvedProbe, ...] = ()
    shield: ResolvedShield | None = None
    domain: str | None = None  # the zone that edges serve

    @property
    def clusters(self) -> dict[str, str]:
        """The sites that are clusters, with their clusters' names."""
        return {site.name: site.cluster for site in self.sites if site.cluster is not None}

    @property
    def here(self) -> ResolvedBazaar:
        """What of it runs on this machine: all fronts, and the sites that are no clusters."""
        local = tuple(site for site in self.sites if site.cluster is None)
        if len(local) == len(self.sites):
            return self
        names = [site.name for site in local]
        services = tuple(
            dataclasses.replace(one, sites=tuple(site for site in one.sites if site in names))
            for one in self.services
        )
        return dataclasses.replace(self, sites=local, services=services)

    def service(self, name: str) -> ResolvedService | None:
        """The service of this name."""
        return next((service for service in self.services if service.name == name), None)


_LISTS: dict[tuple[type[Any], str], type[Any]] = {
    (ResolvedBazaar, "sites"): ResolvedSite,
    (ResolvedBazaar, "services"): ResolvedService,
    (ResolvedBazaar, "probes"): ResolvedProbe,
    (ResolvedService, "secrets"): ResolvedSecret,
    (ResolvedService, "volumes"): ResolvedVolume,
    (ResolvedService, "files"): ResolvedFile,
    (ResolvedService, "publish"): Publish,
}
_PARTS: dict[tuple[type[Any], str], type[Any]] = {
    (ResolvedBazaar, "shield"): ResolvedShield,
    (ResolvedService, "health"): Health,
    (ResolvedService, "limits"): Limits,
}


def to_json(part: Any) -> dict[str, Any]:
    """A resolved part as JSON values."""
    return dataclasses.asdict(part)


def from_json(value: Any) -> ResolvedBazaar:
    """A resolved bazaar out of JSON values. Raises StateError where they are none."""
    return _read(ResolvedBazaar, value)


def service_from_json(value: Any) -> ResolvedService:
    """A resolved service out of JSON values. Raises StateError where they are none."""
    return _read(ResolvedService, value)


def _read(kind: type[Any], value: Any) -> Any:
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(value, dict) or not names.issuperset(value):  # pyright: ignore[reportUnknownArgumentType]
        raise StateError(f"stored state holds no {kind.__name__}")
    fields: dict[str, Any] = {}
    for name, item in value.items():  # pyright: ignore[reportUnknownVariableType]
        if (kind, name) in _LISTS and isinstance(item, list | tuple):
            fields[name] = tuple(_read(_LISTS[kind, name], one) for one in item)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        elif (kind, name) in _PARTS and item is not None:
            fields[name] = _read(_PARTS[kind, name], item)
        else:
            fields[name] = _frozen(item)
    try:
        return kind(**fields)
    except TypeError as error:
        raise StateError(f"stored state holds no whole {kind.__name__}: {error}") from None


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
