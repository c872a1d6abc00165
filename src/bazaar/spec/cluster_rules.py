"""What a site that is a cluster must be: beyond each field being right in itself."""

from __future__ import annotations

import re
from collections.abc import Callable

from bazaar.spec.cluster import Machine
from bazaar.spec.model import Bazaar, Service, Site, Volume
from bazaar.spec.text import Path

Report = Callable[..., None]
PROVIDERS = ("local", "hosts")
_TAKEN = re.compile("default|kube-.*")
_NO_CLUSTER = "is not there yet: a local site is a network namespace of this machine"


def check(bazaar: Bazaar, partial: frozenset[Path], report: Report) -> None:
    """Report what is wrong with sites, and with services where these are clusters."""
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
            _cluster(site, path in partial, report)
        elif path not in partial:
            if site.provider == "hosts":
                report(
                    (*path, "provider"),
                    "'hosts' makes a cluster of machines: say `cluster: {}` as well",
                )
            elif site.machines is not None:
                report((*path, "machines"), _NO_CLUSTER, key=True)
    clusters = {site.name: site for site in bazaar.sites if site.cluster is not None}
    if clusters and bazaar.services and _TAKEN.fullmatch(bazaar.name):
        report(("bazaar",), f"'{bazaar.name}' is a namespace that Kubernetes has for itself")
    for service in bazaar.services if clusters else ():
        names = clusters if service.sites == "all" else service.sites
        if found := [clusters[name] for name in names if name in clusters]:
            _service(service, found, report)


def _service(service: Service, sites: list[Site], report: Report) -> None:
    """What a service cannot be in a cluster."""
    path: Path = ("services", service.name)
    if service.name[:1].isdigit():
        report(path, f"'{service.name}': on a cluster a Service's name begins with a letter")
    if service.pids is not None:
        report(
            (*path, "pids"),
            "a cluster has one limit for all its pods: say `extra_args: {kubelet: {pod-max-pids: "
            "…}}` there",
            key=True,
        )
    for index, volume in enumerate(service.volumes):
        if isinstance(volume, Volume) and volume.source.startswith("/"):
            report(
                (*path, "volumes", index),
                f"'{volume.source}' is a directory of this machine, and {sites[0].name} is a "
                "cluster of others: take a named volume, or `files`",
            )
    bare = [site.name for site in sites if site.cluster and not site.cluster.gvisor]
    if service.kernel == "own" and bare:
        report((*path, "kernel"), f"'own' needs gVisor, and {bare[0]} has `gvisor: false`")


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
