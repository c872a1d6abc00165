"""Places, and the balance between them."""

from __future__ import annotations

from pathlib import Path

from bazaar.model.record import record


@record
class Attachment:
    """A container's own network namespace, wired into a site."""

    namespace: str  # its name, as `ip netns` lists it
    address: str  # 10.44.1.11
    gateway: str  # 10.44.1.1
    prefix: int = 24


@record
class Health:
    """How a service says that it works."""

    kind: str = "tcp"  # http | tcp | none
    path: str = "/"  # http: any status from 200 to 399 is healthy
    interval: float = 1.0  # seconds
    timeout: float = 2.0  # seconds
    start_period: float = 60.0  # seconds a replica may take until it first answers


@record
class Backend:
    """One replica as the balance sees it."""

    id: str  # apache/brussels-u/1
    site: str
    address: str
    port: int
    draining: bool = False  # finishes what it has, gets nothing new
    weight: int = 1  # how many replicas are behind it: several, where it is a cluster's machine


@record
class Publish:
    """An address and port of the host that leads to a service's front."""

    address: str
    port: int


@record
class Front:
    """A service's one address, spread over all its healthy replicas."""

    service: str
    address: str
    port: int
    mode: str = "http"  # http | tcp
    health: Health = Health()
    backends: tuple[Backend, ...] = ()
    publish: tuple[Publish, ...] = ()
    certificate: Path | None = None  # PEM with key and chain: TLS at the front
    certificate_digest: str = ""  # another one makes the balance read the file again
    nearest: str | None = None  # a site whose replicas are preferred


@record
class BackendStatus:
    """What the balance measured of one replica."""

    id: str
    healthy: bool
    sessions: int = 0  # since it was added
    current: int = 0  # now
    detail: str = ""  # the last check's own words
