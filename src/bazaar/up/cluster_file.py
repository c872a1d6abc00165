"""The clusters that a bazaar's description asks for: a request for each of its sites with one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bazaar.errors import UsageError
from bazaar.model.machine import Machine
from bazaar.spec import cluster_values
from bazaar.up.cluster_request import Request, Wish

if TYPE_CHECKING:
    from bazaar.spec import Bazaar, Site
    from bazaar.spec.cluster import Cluster as Fields
    from bazaar.spec.cluster import Machine as MachineFields

_PLAIN = ("network", "domain", "api_port", "gvisor", "audit", "hardening")


def requests(path: str, site: str | None = None) -> list[Request]:
    """What a file asks for, by site. Raises SpecError, and UsageError where there is no cluster."""
    from bazaar import spec

    bazaar = spec.load(path, probes=False)
    sites = [one for one in bazaar.sites if one.cluster is not None]
    names = [one.name for one in sites]
    if site is not None and site not in names:
        known = f"there are {', '.join(names)}" if names else "there is none"
        raise UsageError(f"{path}: there is no site {site} with a cluster: {known}")
    if not sites:
        raise UsageError(
            f"{path}: no site is a cluster", hint="say `cluster: {}` and `machines:` of a site"
        )
    return [_request(bazaar.name, one) for one in sites if site in (None, one.name)]


def of(bazaar: Bazaar) -> list[Request]:
    """What a checked description asks for; nothing where no site is a cluster."""
    return [_request(bazaar.name, one) for one in bazaar.sites if one.cluster is not None]


def _request(bazaar: str, site: Site) -> Request:
    fields = site.cluster
    assert fields is not None
    local = site.machines if isinstance(site.machines, int) else None
    machines = () if local is not None else cast("tuple[MachineFields, ...]", site.machines)
    return Request(
        name=f"{bazaar}-{site.name}",
        local=local,
        control_planes=fields.control_planes,
        version=fields.version,
        wishes=tuple(_wish(one) for one in machines),
        options=_options(fields),
    )


def _options(fields: Fields) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(fields, name) for name in _PLAIN}
    for name in ("service_range", "pod_range", "endpoint"):
        if value := getattr(fields, name):
            found[name] = value
    found["feature_gates"] = dict(fields.feature_gates)
    found["extra_args"] = {name: dict(one) for name, one in fields.extra_args.items()}
    found["registry_mirrors"] = {
        name: tuple(cast("tuple[str, ...]", mirrors))
        for name, mirrors in fields.registry_mirrors.items()
    }
    if fields.proxy is not None:
        proxy = fields.proxy
        said = {"http": proxy.http, "https": proxy.https, "no_proxy": ",".join(proxy.no_proxy)}
        found["proxy"] = {key: value for key, value in said.items() if value}
    found["manifests"] = _manifests(cast("tuple[str, ...]", fields.manifests))
    return found


def _manifests(paths: tuple[str, ...]) -> Mapping[str, str]:
    from bazaar.spec.loader import read_text

    found: dict[str, str] = {}
    for path in paths:
        try:
            found[path] = read_text(path)
        except ValueError as error:
            raise UsageError(
                f"manifests: {error}", hint=f"{Path(path).parent} is looked in"
            ) from None
    return found


def _wish(machine: MachineFields) -> Wish:
    return Wish(
        _machine(machine),
        machine.role or "",
        dict(machine.labels),
        tuple(machine.taints),
        machine.internal_address or "",
    )


def _machine(machine: MachineFields) -> Machine:
    return Machine(
        machine.name or cluster_values.node_name(machine.address),
        machine.address,
        user=machine.user or "root",
        port=machine.port or 22,
        key=machine.key or "",
        known_hosts=machine.known_hosts or "",
        jump=_machine(machine.jump) if machine.jump else None,
    )
