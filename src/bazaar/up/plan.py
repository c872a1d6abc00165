"""What has to change for a bazaar to be as wanted: a pure function of two states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bazaar.model.change import Change
from bazaar.model.container import ContainerState
from bazaar.spec.resolved import ResolvedBazaar, ResolvedProbe, ResolvedService
from bazaar.up import replicas
from bazaar.up.replicas import Slot


@dataclass(frozen=True, slots=True)
class Current:
    """What is there now, read from the kernel and the state folder."""

    applied: ResolvedBazaar | None = None  # what was brought about the last time
    subnet: str = ""  # empty while its network is not there
    sites: frozenset[str] = frozenset()
    cut_off: frozenset[str] = frozenset()  # those of the sites that nothing reaches
    containers: tuple[ContainerState, ...] = ()
    volumes: frozenset[str] = frozenset()
    supervised: bool = False
    guarded: bool = False  # somebody would start the supervisor again
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done on clusters, and what cannot be, for the time being."""

    changes: Sequence[Change] = ()
    lost: Mapping[str, str] = field(default_factory=dict[str, str])  # sites without an API, and why
    problems: Sequence[str] = ()  # of clusters' machines


def plan(
    wanted: ResolvedBazaar, current: Current, secrets: Mapping[str, Mapping[str, str]]
) -> list[Change]:
    """All changes, in the order of the description; empty when nothing is to do."""
    return [
        *_sites(wanted, current),
        *_volumes(wanted, current),
        *_services(wanted, current, secrets),
        *_probes(wanted, current),
        *_shield(wanted, current),
        *_supervisor(wanted, current),
    ]


def _sites(wanted: ResolvedBazaar, current: Current) -> list[Change]:
    names = [site.name for site in wanted.sites]
    clusters = current.applied.clusters if current.applied else {}
    return [
        *(
            Change("create", "site", site.name, f"{site.provider}, {site.subnet or 'namespace'}")
            for site in wanted.sites
            if site.cluster is None and site.name not in current.sites
        ),
        *(
            Change("create", "site", site, f"the cluster {cluster}")
            for site, cluster in wanted.clusters.items()
            if clusters.get(site) != cluster
        ),
        *(
            Change("update", "site", site.name, why="it is cut off")
            for site in wanted.sites
            if site.name in current.cut_off
        ),
        *(Change("destroy", "site", n) for n in sorted(current.sites) if n not in names),
    ]


def _volumes(wanted: ResolvedBazaar, current: Current) -> list[Change]:
    named = dict.fromkeys(
        volume.name
        for service in wanted.here.services
        for volume in service.volumes
        if volume.name and service.sites
    )
    return [Change("create", "volume", n) for n in named if n not in current.volumes]


def _services(
    wanted: ResolvedBazaar, current: Current, secrets: Mapping[str, Mapping[str, str]]
) -> list[Change]:
    changes: list[Change] = []
    there: dict[str, dict[Slot, ContainerState]] = {}
    for container in current.containers:
        slot = _slot(container)
        there.setdefault(slot.service, {})[slot] = container
    before = {s.name: s for s in (current.applied.here.services if current.applied else ())}
    for service in wanted.here.services:
        found = there.pop(service.name, {})
        change = _service(service, before.get(service.name), found, current, secrets)
        if change is not None:
            changes.append(change)
    return changes + [Change("destroy", "service", name) for name in sorted(there)]


def _service(
    service: ResolvedService,
    before: ResolvedService | None,
    found: dict[Slot, ContainerState],
    current: Current,
    secrets: Mapping[str, Mapping[str, str]],
) -> Change | None:
    slots = replicas.slots(service)
    if not (found or slots):  # on clusters alone: here is its front
        changed = _differences(before, service)
        return Change("update", "service", service.name, "its front", changed) if changed else None
    if not found:
        return Change("create", "service", service.name, describe(service))
    reasons: list[str] = []
    if any(slot not in found for slot in slots) or any(slot not in slots for slot in found):
        reasons.append(f"replicas {len(found)} → {len(slots)}")
    print_ = replicas.fingerprint(service, secrets.get(service.name, {}))
    if any(dict(c.labels).get("fingerprint") != print_ for c in found.values()):
        reasons.append(_differences(before, service) or "container changed")
    elif before is not None and before != service:
        reasons.append(_differences(before, service))
    if not current.supervised and any(c.status != "running" for c in found.values()):
        reasons.append("stopped replicas start again")
    if not any(reasons):
        return None
    return Change(
        "update", "service", service.name, describe(service), "; ".join(filter(None, reasons))
    )


def _differences(before: ResolvedService | None, after: ResolvedService) -> str:
    """Which fields differ; never their values, which may be long or secret."""
    if before is None:
        return ""
    names = [
        name
        for name in ResolvedService.__dataclass_fields__
        if name not in ("replicas", "sites") and getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(names)


def describe(service: ResolvedService) -> str:
    """A service in a few words: 2x2, its image, its engine, its volumes."""
    count = f"{len(service.sites)}x{service.replicas}" if len(service.sites) > 1 else ""
    words = [count or str(service.replicas), service.image, replicas.engine(service)]
    words += [f"volume {volume.name}" for volume in service.volumes if volume.name]
    return ", ".join(words)


def _probes(wanted: ResolvedBazaar, current: Current) -> list[Change]:
    before = {p.name: p for p in (current.applied.probes if current.applied else ())}
    changes: list[Change] = []
    for probe in wanted.probes:
        if probe.name not in before:
            changes.append(Change("create", "probe", probe.name, _places(probe)))
        elif before[probe.name] != probe:
            changes.append(Change("update", "probe", probe.name, _places(probe), "program"))
    names = [probe.name for probe in wanted.probes]
    return changes + [Change("destroy", "probe", name) for name in before if name not in names]


def _places(probe: ResolvedProbe) -> str:
    """Where a program is attached, in one line."""
    return " ".join(probe.text.split("{")[0].split())


def _shield(wanted: ResolvedBazaar, current: Current) -> list[Change]:
    before = current.applied.shield if current.applied else None
    after = wanted.shield
    if after == before:
        return []
    if after is None:
        return [Change("destroy", "shield", "shield")]
    action = "update" if before else "create"
    return [Change(action, "shield", "shield", f"{after.rate:g}/s for each source, {after.mode}")]


def _supervisor(wanted: ResolvedBazaar, current: Current) -> list[Change]:
    if current.supervised:
        if current.guarded:
            return []
        why = "its guardian ended: nobody would start it again"
        return [Change("update", "supervisor", wanted.name, why=why)]
    if current.applied is None and not (current.sites or current.containers):
        return []  # it comes with the first of what there is to create
    return [Change("create", "supervisor", wanted.name, why="it does not run")]


def _slot(container: ContainerState) -> Slot:
    labels = dict(container.labels)
    number = labels.get("number", "0")
    return Slot(
        labels.get("service", ""), labels.get("site", ""), int(number) if number.isdigit() else 0
    )
