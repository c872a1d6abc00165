"""Fills in what stands and defaults say, and turns sizes, durations and rates into numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.model.container import Limits
from bazaar.model.site import Health, Publish
from bazaar.spec import rules, stands, values
from bazaar.spec.model import Bazaar, File, Secret, Service, Shield, Site, Volume
from bazaar.spec.model import Health as HealthFields
from bazaar.spec.resolved import (
    ResolvedBazaar,
    ResolvedFile,
    ResolvedProbe,
    ResolvedSecret,
    ResolvedService,
    ResolvedShield,
    ResolvedSite,
    ResolvedVolume,
)
from bazaar.spec.validate import check


def resolve(bazaar: Bazaar) -> ResolvedBazaar:
    """A bazaar with nothing left open.

    Raises SpecError when the bazaar is wrong or asks for what this version does not have,
    MissingError when a file that it names (a probe's program, a service's file) cannot be read.
    """
    checked = check(bazaar)
    sites = tuple(
        ResolvedSite(site.name, site.provider, site.subnet, _cluster(checked, site))
        for site in checked.sites
    )
    names = tuple(site.name for site in sites)
    return ResolvedBazaar(
        name=checked.name,
        subnet=checked.subnet,
        sites=sites,
        services=tuple(_service(service, names) for service in checked.services),
        probes=tuple(ResolvedProbe(probe.name, rules.program(probe)) for probe in checked.probes),
        shield=_shield(checked.shield) if checked.shield else None,
        domain=checked.domain,
    )


def _cluster(bazaar: Bazaar, site: Site) -> str | None:
    return None if site.cluster is None else f"{bazaar.name}-{site.name}"


def _service(service: Service, sites: tuple[str, ...]) -> ResolvedService:
    stand = stands.get(service.stand) if service.stand else None
    its_sites = sites if service.sites == "all" else tuple(service.sites)
    port = service.port or (stand.port if stand else None)
    mode = service.mode or (stand.mode if stand else _mode(service))
    environment = dict(stand.environment) if stand else {}
    if stand and port:
        environment["PORT"] = str(port)  # stands listen where it says
    for name, value in service.environment.items():
        environment.pop(name, None)
        if isinstance(value, str):
            environment[name] = value
    nearest = its_sites[0] if service.nearest is True else service.nearest or None
    restart = service.restart
    return ResolvedService(
        name=service.name,
        image=service.image or (stand.image if stand else ""),
        sites=its_sites,
        replicas=service.replicas,
        stand=service.stand,
        kernel=service.kernel or (stand.kernel if stand else "own"),
        command=tuple(service.command or (stand.command if stand else ())),
        entrypoint=tuple(service.entrypoint) if service.entrypoint else None,
        port=port,
        mode=mode,
        health=_health(service.health, mode, port, stand.health if stand else Health()),
        environment=tuple(environment.items()),
        secrets=tuple(
            ResolvedSecret(name, *_source(value))
            for name, value in service.environment.items()
            if isinstance(value, Secret)
        ),
        volumes=_volumes(service, stand.volume if stand else ""),
        files=tuple(_file(target, item) for target, item in service.files.items()),
        limits=Limits(
            values.memory_bytes(str(service.memory)) if service.memory else None,
            service.cpus,
            service.pids,
        ),
        publish=_publish(service),
        certificate=service.certificate,
        certificate_digest=_file_digest(service.certificate),
        nearest=nearest,
        working_directory=service.working_directory,
        user=service.user or (stand.user if stand else "") or None,
        restart_first=values.duration_seconds(str(restart.first)) if restart else 0.1,
        restart_longest=values.duration_seconds(str(restart.longest)) if restart else 30.0,
        stateful=stand.stateful if stand else False,
    )


def _file_digest(certificate: str | None) -> str:
    """Empty where there is no such file: `up` says so before it changes anything."""
    try:
        return hashlib.sha256(Path(certificate).read_bytes()).hexdigest() if certificate else ""
    except OSError:
        return ""


def _mode(service: Service) -> str:
    health = service.health
    http = health and (health.kind == "http" or (health.path and not health.kind))
    return "http" if http else "tcp"


def _source(secret: Secret) -> tuple[str, str]:
    return ("file", secret.file) if secret.file else ("env", secret.env or "")


def _health(fields: HealthFields | None, mode: str, port: int | None, base: Health) -> Health:
    fields = fields or HealthFields()

    def seconds(value: str | float | None, default: float) -> float:
        return values.duration_seconds(str(value)) if value is not None else default

    default = "http" if fields.path else mode
    return Health(
        kind=(fields.kind or default) if port else "none",
        path=fields.path or base.path,
        interval=seconds(fields.interval, base.interval),
        timeout=seconds(fields.timeout, base.timeout),
        start_period=seconds(fields.start_period, base.start_period),
    )


def _volumes(service: Service, data: str) -> tuple[ResolvedVolume, ...]:
    """The service's volumes; a stand with data and no volume for it gets one of its own name."""
    found = [
        ResolvedVolume(volume.target, None, volume.source, volume.read_only)
        if volume.source.startswith("/")
        else ResolvedVolume(volume.target, volume.source, None, volume.read_only)
        for volume in service.volumes
        if isinstance(volume, Volume)
    ]
    if data and all(volume.target != data for volume in found):
        found.append(ResolvedVolume(data, service.name))
    return tuple(found)


def _file(target: str, item: str | File) -> ResolvedFile:
    if isinstance(item, str) or item.content is not None:
        content = item if isinstance(item, str) else item.content or ""
        return ResolvedFile(target, content, None, _digest(content))
    from bazaar.spec.loader import read_text

    try:
        content = read_text(item.file or "")
    except ValueError as error:
        raise MissingError(f"the file for {target}: {error}") from None
    return ResolvedFile(target, None, item.file, _digest(content))


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _publish(service: Service) -> tuple[Publish, ...]:
    given = service.publish if isinstance(service.publish, tuple) else ()
    found = [str(item).rpartition(":") for item in given]
    return tuple(Publish(address, int(port)) for address, _, port in found)


def _shield(shield: Shield) -> ResolvedShield:
    rate = values.rate_per_second(str(shield.rate))
    return ResolvedShield(
        rate=rate,
        burst=shield.burst or max(1, round(2 * rate)),
        allow=tuple(shield.allow),
        block_seconds=values.duration_seconds(str(shield.block)),
        mode=shield.mode,
    )
