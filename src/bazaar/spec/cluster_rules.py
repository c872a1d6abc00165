"""What a site that is a cluster must be: beyond each field being right in itself."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.spec.cluster import Machine
from bazaar.spec.model import Bazaar, Site
from bazaar.spec.text import Path

Report = Callable[..., None]
PROVIDERS = ("local", "hosts")
_NO_CLUSTER = "is not there yet: a local site is a network namespace of this machine"
_NO_SERVICES = (
    "services on clusters are not there yet; `bazaar cluster apply FILE` makes the clusters alone"
)


def check(bazaar: Bazaar, partial: frozenset[Path], report: Report, *, allowed: bool) -> None:
    """Report what is wrong with sites, and that one is a cluster where none is ``allowed``."""
    for site in bazaar.sites:
        path: Path = ("sites", site.name)
        if site.provider not in PROVIDERS:
            report(
                (*path, "provider"),
                f"'{site.provider}' is not there yet: this version runs sites on this machine, "
                "'provider: local', and clusters on machines of yours, 'provider: hosts'",
            )
            continue
        for key in ("region", "zone"):
            if getattr(site, key) is not None:
                report((*path, key), "is not there yet: providers of machines have it", key=True)
        if site.cluster is not None:
            if not allowed:
                report((*path, "cluster"), _NO_SERVICES, key=True)
            _cluster(site, path in partial, report)
        elif path not in partial:
            if site.provider == "hosts":
                report(
                    (*path, "provider"),
                    "'hosts' makes a cluster of machines: say `cluster: {}` as well",
                )
            elif site.machines is not None:
                report((*path, "machines"), _NO_CLUSTER, key=True)


def _cluster(site: Site, partial: bool, report: Report) -> None:
    path: Path = ("sites", site.name)
    if site.subnet is not None:
        report(
            (*path, "subnet"),
            "a cluster's machines are in networks of their own; its pods have `pod_range`",
            key=True,
        )
    if partial:
        return
    if site.machines is None:
        example = "machines: [10.0.0.1, 10.0.0.2]" if site.provider == "hosts" else "machines: 3"
        report((*path, "cluster"), f"a cluster needs machines, as `{example}`", key=True)
        return
    if isinstance(site.machines, int) == (site.provider == "hosts"):
        wanted = "a list of machines" if site.provider == "hosts" else "a number of machines"
        report((*path, "machines"), f"a cluster of provider '{site.provider}' needs {wanted}")
        return
    _machines(site, report)


def _machines(site: Site, report: Report) -> None:
    path: Path = ("sites", site.name, "machines")
    machines: list[Machine] = []
    if not isinstance(site.machines, int):
        machines = [one for one in site.machines or () if isinstance(one, Machine)]
    seen: dict[tuple[str, int], int] = {}
    for index, one in enumerate(machines):
        place = (one.address, one.port or 22)
        if place in seen:
            report((*path, index), f"'{one.address}' is machine {seen[place] + 1} already")
        seen.setdefault(place, index)
    cluster = site.cluster
    assert cluster is not None
    roles = [one.role for one in machines]
    planes = roles.count("control-plane")
    if planes and cluster.control_planes and planes != cluster.control_planes:
        report(
            ("sites", site.name, "cluster", "control_planes"),
            f"{cluster.control_planes}, but the role control-plane is that of {planes}",
        )
    if cluster.etcd == "separate" and roles.count("etcd") not in (1, 3, 5):
        report(
            ("sites", site.name, "cluster", "etcd"),
            f"'separate' needs 1, 3 or 5 machines of the role etcd: there are "
            f"{roles.count('etcd')}",
        )
    if cluster.etcd == "stacked" and "etcd" in roles:
        report((*path, roles.index("etcd")), "the role etcd needs `etcd: separate` in the cluster")
