"""A container: what is asked for, and what is."""

from __future__ import annotations

from pathlib import Path

from bazaar.model.record import field, record


@record
class Limits:
    """What a container may use at most; None is no limit."""

    memory: int | None = None  # bytes
    cpus: float | None = None  # cores
    pids: int | None = None


@record
class Mount:
    """A directory or file of the host (or a tmpfs) seen at ``target`` inside."""

    source: Path
    target: str
    read_only: bool = False
    kind: str = "bind"  # bind | tmpfs


@record
class PublishedPort:
    """A TCP port of the host that leads to one of a container."""

    address: str  # of the host
    port: int
    inside: int

    def __str__(self) -> str:
        """As docker writes it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}->{self.inside}/tcp"


@record
class ImageConfig:
    """The part of an OCI image configuration that decides how it runs."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    working_directory: str = "/"
    user: str = ""
    stop_signal: str = "SIGTERM"
    exposed_ports: tuple[int, ...] = ()


@record
class Image:
    """An image that is on this machine, unpacked and shared by content."""

    reference: str  # as the user wrote it
    digest: str  # sha256:…, of the content
    layers: tuple[Path, ...]  # unpacked directories, lowest first
    config: ImageConfig = field(default_factory=ImageConfig)
    size: int = 0  # bytes of all layers
    cached: bool = False  # it was there already
    seconds: float = 0.0  # what making or pulling it took


@record
class ContainerSpec:
    """One container as the engine is to make it."""

    id: str  # unique on this machine; letters, digits, '.', '_' and '-'
    name: str  # what people see: apache/brussels-u/1
    image: Image
    command: tuple[str, ...] = ()  # replaces the image's command; empty: the image's own
    entrypoint: tuple[str, ...] | None = None  # replaces the image's entrypoint
    environment: tuple[tuple[str, str], ...] = ()  # secrets travel here, never in argv
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    namespace: str | None = None  # a named network namespace; None: no network but loopback
    working_directory: str | None = None
    user: str | None = None
    engine: str = "gvisor"  # gvisor | shared
    limits: Limits = field(default_factory=Limits)
    read_only: bool = False
    terminal: bool = False
    labels: tuple[tuple[str, str], ...] = ()  # bazaar, service, site, replica
    ports: tuple[PublishedPort, ...] = ()  # for people to see; who starts it forwards them
    # Run by the shim, as its last deed, when the container has ended: OCI's poststop hook.
    poststop: tuple[str, ...] = ()


@record
class ContainerState:
    """What a container is doing now."""

    id: str
    name: str
    engine: str
    status: str  # created | running | stopped
    pid: int = 0  # of the engine's process on the host; 0 when it does not run
    exit_code: int | None = None
    started_at: float = 0.0  # seconds since the epoch
    labels: tuple[tuple[str, str], ...] = ()
