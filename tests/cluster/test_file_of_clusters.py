"""Clusters of a file on real machines: one with etcd apart, one that cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bazaar.errors import BazaarError, ClusterError
from bazaar.host import machines
from bazaar.model.machine import Machine
from bazaar.up import cluster_file, cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, healthy, on, own_state

pytestmark = [pytest.mark.xdist_group("cluster-file"), pytest.mark.timeout(1800)]
FILE = """\
bazaar: fair
sites:
  apart:
    provider: hosts
    machines:
%s
    cluster: {etcd: separate}
  lost:
    provider: hosts
    machines: [10.253.255.250]
    cluster: {}
"""
NAME = "fair-apart"


def write(path: Path, made: Sequence[Machine]) -> None:
    """The first is the control plane, all others hold etcd."""
    lines = [
        f"      - {{name: {one.name}, address: {one.address}, key: {one.key}, "
        f"known_hosts: {one.known_hosts}, role: {'etcd' if number else 'control-plane'}}}"
        for number, one in enumerate(made)
    ]
    path.write_text(FILE % "\n".join(lines))


@pytest.fixture(scope="module")
def applied(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, dict[str, clusters.Outcome | BazaarError]]]:
    with own_state(tmp_path_factory, "file") as folder:
        made = [one.machine for one in clusters.make_machines(2, QUIET)]
        path = folder / "fair.yaml"
        write(path, made)
        yield path, clusters.apply_all(cluster_file.requests(str(path)), QUIET)


def test_one_that_cannot_be_reached_stops_no_other(applied):
    path, results = applied
    lost = results["fair-lost"]
    assert isinstance(lost, BazaarError) and "10.253.255.250" in lost.message
    assert isinstance(results[NAME], clusters.Outcome)
    requests = cluster_file.requests(str(path), "apart")
    assert clusters.of_one(clusters.plan_all(requests, QUIET))[1] == []


def test_etcd_runs_on_its_own_machine_alone(applied, tmp_path: Path):
    assert healthy(NAME)
    plane, store = cluster_life.status(NAME, QUIET).nodes
    assert (plane.role, plane.etcd) == ("control-plane", "")
    assert (store.role, store.etcd, store.state) == ("etcd", "started", "ready")
    assert "etcd" not in on(plane.name, "ps -e -o comm").split()
    running = on(store.name, "ps -e -o comm").split()
    assert "etcd" in running and "kubelet" not in running
    kubectl = Kubectl(NAME, tmp_path)
    names = [one["metadata"]["name"] for one in kubectl.json("get", "nodes")["items"]]
    assert names == [plane.name]


def test_a_backup_of_it_brings_back_what_it_holds(applied, tmp_path: Path):
    kubectl = Kubectl(NAME, tmp_path)
    kubectl("create", "configmap", "kept")
    cluster_life.backup(NAME, tmp_path / "a.backup", QUIET)
    kubectl("delete", "configmap", "kept")
    cluster_life.restore(tmp_path / "a.backup", Request(name=NAME), QUIET)
    assert "kept" in kubectl("get", "configmaps")
    assert healthy(NAME) and cluster_request.known(NAME).stores[0].etcd


@pytest.mark.slow
def test_machines_of_etcd_come_and_go(applied, tmp_path: Path):
    path, _ = applied
    clusters.make_machines(2, QUIET)
    plane, first, *others = [one.machine for one in machines.listing()]
    kubectl = Kubectl(NAME, tmp_path)
    kubectl("create", "configmap", "stays")

    def apply(*made: Machine) -> None:
        write(path, made)
        request = cluster_file.requests(str(path), "apart")
        clusters.of_one(clusters.apply_all(request, QUIET))
        assert clusters.of_one(clusters.plan_all(request, QUIET))[1] == []

    # The only one cannot be another from one moment to the next: its data would be gone.
    with pytest.raises(ClusterError, match=f"{first.name} cannot leave"):
        apply(plane, others[0])
    apply(plane, first, *others)
    apply(plane, others[0])
    assert healthy(NAME)
    assert [node.name for node in cluster_life.status(NAME, QUIET).nodes] == [
        plane.name,
        others[0].name,
    ]
    assert "stays" in kubectl("get", "configmaps")
    for gone in (first, others[1]):
        assert "etcd" not in on(gone.name, "ps -e -o comm; ls -d /var/lib/etcd || true").split()
