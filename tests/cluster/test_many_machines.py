"""Three control planes and a worker: pods across machines, losses, machines that come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.cluster import vault
from bazaar.host import machines
from bazaar.up import cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, bring, healthy, on, own_state, pod, service

pytestmark = [pytest.mark.xdist_group("cluster-many"), pytest.mark.timeout(3600)]
NAME = "many"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with own_state(tmp_path_factory, "cluster") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(vault.PASSPHRASE, "correct horse battery staple")
        clusters.apply(Request(name=NAME, local=4), QUIET)
        yield Kubectl(NAME, folder)


def test_all_are_ready_and_the_plan_is_empty(kubectl: Kubectl):
    assert healthy(NAME)
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []
    status = cluster_life.status(NAME, QUIET)
    assert [node.role for node in status.nodes] == ["control-plane"] * 3 + ["worker"]
    assert [node.etcd for node in status.nodes] == ["started"] * 3 + [""]
    nodes = {one["metadata"]["name"]: one for one in kubectl.json("get", "nodes")["items"]}
    taints = [one["key"] for one in nodes["m1"]["spec"]["taints"]]
    assert taints == ["node-role.kubernetes.io/control-plane"]
    assert "taints" not in nodes["m4"]["spec"]


def test_pods_of_different_machines_reach_one_another(kubectl: Kubectl):
    bring(NAME, ["m3", "m4"])
    kubectl.apply(pod("near", node="m4"), pod("far", node="m3"), service("far", "far"))
    kubectl.wait_for("pod/near", "condition=Ready")
    kubectl.wait_for("pod/far", "condition=Ready")
    address = kubectl.json("get", "pod", "far")["status"]["podIP"]
    assert address.startswith("10.244.2.")
    for place in (f"{address}:8080", "far:80", "far.default.svc.cluster.local:80"):
        kubectl.reach("near", place)


def test_without_its_first_control_plane_it_goes_on(kubectl: Kubectl):
    kubectl("create", "configmap", "before", "--from-literal=a=b")
    on("m1", "systemctl stop kube-apiserver etcd kube-controller-manager kube-scheduler")
    said = on(
        "m2",
        "for n in 1 2 3 4 5 6 7 8 9 10; do kubectl --kubeconfig "
        "/etc/kubernetes/super-admin.conf create configmap meanwhile && break; sleep 1; done",
    )
    assert "created" in said
    # Nodes reach the API by their own balancers; the worker stays ready.
    time.sleep(12)
    ready = on(
        "m2",
        "kubectl --kubeconfig /etc/kubernetes/super-admin.conf get node m4 -o "
        "jsonpath='{.status.conditions[?(@.type==\"Ready\")].status}'",
    )
    assert ready == "True"
    outcome = clusters.apply(Request(name=NAME), QUIET)
    assert {change.name for change in outcome.changes} == {"m1"}
    names = {one["metadata"]["name"] for one in kubectl.json("get", "configmaps")["items"]}
    assert {"before", "meanwhile"} <= names and healthy(NAME)


def test_a_worker_comes_and_goes(kubectl: Kubectl):
    clusters.apply(Request(name=NAME, local=5), QUIET)
    assert healthy(NAME) and len(kubectl.json("get", "nodes")["items"]) == 5
    indices = {node.name: node.index for node in cluster_request.known(NAME).nodes}
    assert indices["m5"] == 4
    assert cluster_request.leaving(Request(name=NAME, local=4)) == ["m5"]
    clusters.apply(Request(name=NAME, local=4), QUIET)
    names = [one["metadata"]["name"] for one in kubectl.json("get", "nodes")["items"]]
    assert names == ["m1", "m2", "m3", "m4"]
    assert [one.machine.name for one in machines.listing()] == names
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []


def test_two_of_three_lost_and_brought_back_from_a_backup(kubectl: Kubectl, tmp_path: Path):
    for number in range(20):
        kubectl("create", "configmap", f"object-{number}", "--from-literal=a=b")
    count = len(kubectl.json("get", "configmaps", "-A")["items"])
    backup = tmp_path / "many.backup"
    cluster_life.backup(NAME, backup, QUIET)
    for name in ("m2", "m3"):
        on(name, "systemctl kill -s KILL etcd kube-apiserver; systemctl stop etcd kube-apiserver")
        on(name, "rm -rf /var/lib/etcd")
    assert not cluster_life.status(NAME, QUIET).api
    cluster_life.restore(backup, Request(name=NAME), QUIET)
    assert len(kubectl.json("get", "configmaps", "-A")["items"]) == count
    assert healthy(NAME) and clusters.plan(Request(name=NAME), QUIET)[1] == []
    status = cluster_life.status(NAME, QUIET)
    assert [node.etcd for node in status.nodes] == ["started"] * 3 + [""]
