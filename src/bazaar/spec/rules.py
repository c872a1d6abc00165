"""What the parts of a bazaar must be to one another, beyond each being right in itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import cache
from typing import Any

from bazaar.errors import BazaarError, TraceError
from bazaar.spec import stands, values
from bazaar.spec.model import Bazaar, Probe, Secret, Service, Volume
from bazaar.spec.text import Path

MOST_PER_SITE = 200  # replicas in a /24, with room for those that replace them
LONGEST_ID = 127  # characters of a container's id

Report = Callable[..., None]


def check(bazaar: Bazaar, sites: frozenset[str], partial: frozenset[Path], report: Report) -> None:
    """Report every contradiction by ``report(path, message)``.

    ``sites`` names all sites, those too that could not be read. Parts whose paths are in
    ``partial`` lack a field that was wrong: what they lack is not held against them.
    """
    _names(bazaar, sites, report)
    _subnets(bazaar, report)
    for service in bazaar.services:
        if ("services", service.name) not in partial:
            _source(service, report)
            _front(service, report)
        _sites(service, sites, report)
        _volumes(service, len(sites), report)
    _shared_volumes(bazaar, report)
    _published(bazaar, report)
    _crowding(bazaar, sites, report)
    for probe in bazaar.probes:
        whole = ("probes", probe.name) not in partial
        if whole and (probe.text is None) == (probe.file is None):
            report(("probes", probe.name), "a probe needs exactly one of: text, file", key=True)


def replicas(service: Service, sites: int) -> int:
    """How many replicas a service has in a bazaar of so many sites."""
    return service.replicas * (sites if service.sites == "all" else len(service.sites))


def _names(bazaar: Bazaar, sites: frozenset[str], report: Report) -> None:
    if bazaar.name == "run":
        report(("bazaar",), "'run' is what the containers of `bazaar run` go by; take another name")
    for service in bazaar.services:
        where = sites if service.sites == "all" else service.sites
        site = max(where, key=len, default="")
        # As a replica's container is called; a rollout's next generation has a number more.
        length = len(f"{bazaar.name}.{service.name}.{site}.{service.replicas}.9999")
        if length > LONGEST_ID:
            report(
                ("services", service.name),
                f"its name makes {length} characters with the bazaar's and that of '{site}'; "
                f"a container's has up to {LONGEST_ID}. Shorten one of them",
                key=True,
            )


def _subnets(bazaar: Bazaar, report: Report) -> None:
    seen: dict[str, str] = {}
    for site in bazaar.sites:
        if site.subnet is None:
            continue
        path: Path = ("sites", site.name, "subnet")
        if bazaar.subnet is not None:
            whole = ipaddress.IPv4Network(bazaar.subnet)
            if not ipaddress.IPv4Network(site.subnet).subnet_of(whole):
                report(path, f"'{site.subnet}' is not inside the bazaar's subnet {whole}")
            elif site.subnet == str(next(whole.subnets(new_prefix=24))):
                report(path, f"'{site.subnet}' is the network of the front addresses; take another")
        else:
            whole = ipaddress.IPv4Network(site.subnet).supernet(new_prefix=16)
            report(path, f"lies in the bazaar's subnet, which is not given: add 'subnet: {whole}'")
        if site.subnet in seen:
            report(path, f"'{site.subnet}' is the subnet of {seen[site.subnet]} already")
        seen.setdefault(site.subnet, site.name)


def _source(service: Service, report: Report) -> None:
    if (service.stand is None) == (service.image is None):
        report(
            ("services", service.name),
            "a service needs exactly one of: stand (`bazaar stands` lists them), image",
            key=True,
        )


def _sites(service: Service, sites: frozenset[str], report: Report) -> None:
    path: Path = ("services", service.name)
    if service.sites != "all":
        for index, name in enumerate(service.sites):
            if name not in sites:
                report((*path, "sites", index), _no_site(name, sites))
    if isinstance(service.nearest, str):
        if service.nearest not in sites:
            report((*path, "nearest"), _no_site(service.nearest, sites))
        elif service.sites != "all" and service.nearest not in service.sites:
            report((*path, "nearest"), f"the service does not run in '{service.nearest}'")


def _no_site(name: str, sites: frozenset[str]) -> str:
    near = values.meant(name, sorted(sites)) or f" There are: {', '.join(sorted(sites))}"
    return f"there is no site '{name}'.{near}"


def _front(service: Service, report: Report) -> None:
    path: Path = ("services", service.name)
    stand = stands.get(service.stand) if service.stand else None
    if service.port is None and (stand is None or stand.port is None):
        kind = service.health.kind if service.health else None
        needing: dict[str, Any] = {
            "publish": service.publish,
            "certificate": service.certificate,
            "mode": service.mode,
            "nearest": service.nearest,
            "health": kind if kind in ("http", "tcp") else None,
        }
        for key, value in needing.items():
            if value:
                report((*path, key), "means nothing without a port; add 'port: 80' or so")
    if service.health and service.health.path and service.health.kind in ("tcp", "none"):
        report((*path, "health", "path"), f"a check of kind {service.health.kind} asks for no path")


def _volumes(service: Service, sites: int, report: Report) -> None:
    path: Path = ("services", service.name, "volumes")
    targets: dict[str, str] = dict.fromkeys(service.files, "a file")
    for index, volume in enumerate(_of(service)):
        if volume.target in targets:
            report((*path, index), f"{targets[volume.target]} stands at '{volume.target}' already")
        targets.setdefault(volume.target, "a volume")
    stand = stands.get(service.stand) if service.stand else None
    if stand is None or not stand.stateful:
        return
    total = replicas(service, sites)
    if total > 1:
        key = "replicas" if service.replicas > 1 else "sites"
        where = f"{service.replicas} replicas" if key == "replicas" else f"{total} sites"
        report(
            ("services", service.name, key),
            f"{where} of '{stand.name}' would each keep data of their own, and answer differently: "
            "it is stateful and does not replicate. Accepted: one replica in one site",
        )


def _of(service: Service) -> list[Volume]:
    return [volume for volume in service.volumes if isinstance(volume, Volume)]


def _shared_volumes(bazaar: Bazaar, report: Report) -> None:
    """Two programs that think a volume their own would spoil it."""
    owners: dict[str, str] = {}
    for service in bazaar.services:
        stand = stands.get(service.stand) if service.stand else None
        for volume in _of(service):
            if stand and stand.stateful and volume.target == stand.volume:
                owners.setdefault(volume.source, service.name)
    for service in bazaar.services:
        for index, volume in enumerate(_of(service)):
            owner = owners.get(volume.source, service.name)
            if owner != service.name and not volume.read_only:
                report(
                    ("services", service.name, "volumes", index),
                    f"'{volume.source}' holds the data of {owner}; "
                    "take another volume, or add ':ro'",
                )


def _published(bazaar: Bazaar, report: Report) -> None:
    taken: dict[tuple[str, str], str] = {}
    for service in bazaar.services:
        given = service.publish
        if not isinstance(given, tuple):
            continue
        for index, published in enumerate(given):
            address, _, port = str(published).rpartition(":")
            for (other, number), owner in taken.items():
                if number == port and (other == address or "0.0.0.0" in (other, address)):  # noqa: S104
                    report(
                        ("services", service.name, "publish", index),
                        f"port {port} of {other} is published for {owner} already",
                    )
                    break
            else:
                taken[address, port] = service.name


def _crowding(bazaar: Bazaar, sites: frozenset[str], report: Report) -> None:
    counts = dict.fromkeys(sites, 0)
    for service in bazaar.services:
        for name in sites if service.sites == "all" else service.sites:
            counts[name] = counts.get(name, 0) + service.replicas
    for name, count in counts.items():
        if count > MOST_PER_SITE:
            report(
                ("sites", name), f"{count} replicas; a site holds up to {MOST_PER_SITE}", key=True
            )


def check_secrets(bazaar: Bazaar, report: Report) -> None:
    """Look for each secret, without keeping it."""
    from bazaar.spec import secrets

    for service in bazaar.services:
        for variable, value in service.environment.items():
            if isinstance(value, Secret):
                kind = "file" if value.file else "env"
                try:
                    secrets.read(kind, value.file or value.env or "")
                except ValueError as error:
                    report(("services", service.name, "environment", variable, kind), str(error))


def check_programs(bazaar: Bazaar, report: Report) -> None:
    """Compile each probe's program, without attaching it."""
    for probe in bazaar.probes:
        if probe.text is not None or probe.file is not None:
            _check_program(probe, report)


def _check_program(probe: Probe, report: Report) -> None:
    path: Path = ("probes", probe.name)
    try:
        text = program(probe)
    except ValueError as error:
        report((*path, "file"), str(error))
        return
    if not text.strip():
        report(path, "an empty program; the least is: BEGIN { exit(); }")
    elif problem := _compiled(text):
        # The message has its own line and column, of the program's text.
        report(path, problem, column=False)


@cache
def _compiled(text: str) -> str | None:
    """What the compiler says against a program; None where it compiles.

    Where the machine lacks what compiling takes, nothing is held against the program: `up`
    says what is missing, and goes on without probes.
    """
    from bazaar import trace

    try:
        trace.compile(text)
    except TraceError as error:
        place = f"{error.line}:{error.column} " if error.line else ""
        hint = f" ({error.hint})" if error.hint else ""
        return f"{place}{error.message}{hint}"
    except BazaarError:
        return None
    return None


def program(probe: Probe) -> str:
    """The probe's text, from its file if it names one. Raises ValueError with the reason."""
    if probe.text is not None:
        return probe.text
    from bazaar.spec.loader import read_text

    return read_text(probe.file or "")
