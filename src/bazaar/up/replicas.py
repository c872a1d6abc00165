"""From a wanted service to the containers that are its replicas: pure but for files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bazaar.host import paths
from bazaar.host.files import write_atomic
from bazaar.model.container import ContainerSpec, ContainerState, Image, Mount
from bazaar.model.site import Health
from bazaar.spec.resolved import ResolvedService
from bazaar.up.keeper import Replica

# What a service has around its containers: a change of it restarts nothing.
_AROUND = (
    "sites",
    "replicas",
    "publish",
    "certificate",
    "certificate_digest",
    "nearest",
    "restart_first",
    "restart_longest",
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place a replica has to fill."""

    service: str
    site: str
    number: int

    @property
    def name(self) -> str:
        """What people see and type: apache/brussels-u/1."""
        return f"{self.service}/{self.site}/{self.number}"

    def container(self, bazaar: str, generation: int) -> str:
        """The container's id; a rollout's next generation needs another than the last."""
        suffix = f".{generation}" if generation > 1 else ""
        return f"{bazaar}.{self.service}.{self.site}.{self.number}{suffix}"


@dataclass(frozen=True, slots=True)
class Version:
    """A service with the values of its secrets: what its containers are made of."""

    service: ResolvedService
    secrets: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """By which its containers are known."""
        return fingerprint(self.service, self.secrets)

    @property
    def shares_data(self) -> bool:
        """Whether two replicas in one place would write to the same data."""
        service = self.service
        return service.stateful or any(not volume.read_only for volume in service.volumes)

    @property
    def checked(self) -> bool:
        """Whether a replica can be asked for its health."""
        return self.service.port is not None and self.service.health.kind != "none"


def slots(service: ResolvedService) -> list[Slot]:
    """All places of a service, first site first."""
    return [
        Slot(service.name, site, number)
        for site in service.sites
        for number in range(1, service.replicas + 1)
    ]


def leaving(bazaar: str, container: ContainerState) -> Replica:
    """A running container that no longer is as wanted: kept only until another took its place."""
    labels = dict(container.labels)
    return Replica(
        bazaar=bazaar,
        service=labels.get("service", ""),
        site=labels.get("site", ""),
        number=int(labels.get("number", 0)),
        generation=int(labels.get("generation", 1)),
        id=container.id,
        engine=container.engine,
        address=labels.get("address", ""),
        port=None,
        health=Health("none"),
        fingerprint=labels.get("fingerprint", ""),
    )


def fingerprint(service: ResolvedService, secrets: Mapping[str, str]) -> str:
    """Of all that, when it changes, needs new containers; secrets enter as their hash."""
    container = asdict(service)
    for key in (*_AROUND, "mode", "health"):
        del container[key]
    container["secrets"] = hashlib.sha256(json.dumps(sorted(secrets.items())).encode()).hexdigest()
    return hashlib.sha256(json.dumps(container, sort_keys=True).encode()).hexdigest()[:16]


def reverted(service: ResolvedService, before: ResolvedService) -> ResolvedService:
    """``service`` as it was ``before``, in the places and behind the addresses it has now."""
    return replace(before, **{name: getattr(service, name) for name in _AROUND})


def build(
    bazaar: str,
    service: ResolvedService,
    slot: Slot,
    *,
    generation: int,
    address: str,
    image: Image,
    secrets: Mapping[str, str],
    resolver: str,
) -> Replica:
    """The replica that fills ``slot``.

    ``secrets`` maps this service's secret variables to their values; ``resolver`` is the
    text of its resolv.conf.
    """
    print_ = fingerprint(service, secrets)
    container = ContainerSpec(
        id=slot.container(bazaar, generation),
        name=slot.name,
        image=image,
        command=service.command,
        entrypoint=service.entrypoint,
        environment=(*service.environment, *sorted(secrets.items())),
        mounts=(
            *_volumes(bazaar, service),
            *_files(bazaar, service, print_),
            Mount(_resolver(bazaar, resolver), "/etc/resolv.conf", read_only=True),
        ),
        hostname=f"{service.name}-{slot.site}-{slot.number}",
        working_directory=service.working_directory,
        user=service.user,
        engine=engine(service),
        limits=service.limits,
        labels=(
            ("bazaar", bazaar),
            ("service", slot.service),
            ("site", slot.site),
            ("number", str(slot.number)),
            ("generation", str(generation)),
            ("address", address),
            ("fingerprint", print_),
        ),
    )
    return Replica(
        bazaar=bazaar,
        service=slot.service,
        site=slot.site,
        number=slot.number,
        generation=generation,
        id=container.id,
        engine=container.engine,
        address=address,
        port=service.port,
        health=service.health,
        fingerprint=print_,
        container=container,
        first_pause=service.restart_first,
        longest_pause=service.restart_longest,
    )


def volume(bazaar: str, name: str) -> Path:
    """Where a named volume's data lies."""
    return paths.bazaar(bazaar) / "volumes" / name


def engine(service: ResolvedService) -> str:
    """The engine that gives the kernel the service asks for."""
    return "shared" if service.kernel == "shared" else "gvisor"


def _volumes(bazaar: str, service: ResolvedService) -> list[Mount]:
    mounts: list[Mount] = []
    for wanted in service.volumes:
        source = Path(wanted.source) if wanted.source else volume(bazaar, wanted.name or "")
        if wanted.name:
            # Programs that drop their privileges must reach their data.
            source.mkdir(parents=True, exist_ok=True, mode=0o755)
        mounts.append(Mount(source, wanted.target, wanted.read_only))
    return mounts


def _files(bazaar: str, service: ResolvedService, print_: str) -> list[Mount]:
    """The service's small files, written once for each version of them.

    The folder above them is closed to other users; the files are not, since programs in
    the container read them under users of their own.
    """
    folder = paths.bazaar(bazaar) / "files" / service.name / print_
    mounts: list[Mount] = []
    for number, file in enumerate(service.files):
        copy = folder / str(number)
        if not copy.exists():
            content = file.content
            if content is None:
                content = Path(file.source or "").read_text()
            write_atomic(copy, content, mode=0o644)
        mounts.append(Mount(copy, file.target, read_only=True))
    return mounts


def _resolver(bazaar: str, text: str) -> Path:
    path = paths.bazaar(bazaar) / "resolv.conf"
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text, mode=0o644)
    return path
