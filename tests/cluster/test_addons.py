"""What a cluster has besides, on one real machine that a description asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.up import cluster_file, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, bring, healthy, on, own_state, pod

pytestmark = [pytest.mark.xdist_group("cluster-addons"), pytest.mark.timeout(3600)]
NAME = "fair-here"
FILE = """\
bazaar: fair
sites:
  here:
    machines: 1
    cluster: {%s}
"""
OPTIONS = """
      registry_mirrors: {docker.io: http://10.1.0.9:5000},
      proxy: {http: http://10.1.0.9:3128},
      extra_args: {kubelet: {v: 3}},
      manifests: one.yaml
"""
MANIFEST = """\
apiVersion: v1
kind: Namespace
metadata: {name: stalls}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fish, namespace: stalls}
data: {kind: herring}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_state(tmp_path_factory, "addons") as made:
        yield made


@pytest.fixture(scope="module")
def kubectl(folder: Path) -> Kubectl:
    apply(folder, "")
    bring(NAME)
    return Kubectl(NAME, folder)


def apply(folder: Path, options: str) -> clusters.Outcome:
    """Apply the description with these options."""
    path = folder / "fair.yaml"
    path.write_text(FILE % options)
    return clusters.of_one(clusters.apply_all(cluster_file.requests(str(path)), QUIET))


def test_it_is_as_described_and_its_plan_is_empty(kubectl: Kubectl, folder: Path):
    assert healthy(NAME)
    requests = cluster_file.requests(str(folder / "fair.yaml"))
    assert clusters.of_one(clusters.plan_all(requests, QUIET))[1] == []
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []


def claim(name: str) -> dict[str, object]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def test_a_claim_gets_a_volume_and_its_data_stays(kubectl: Kubectl):
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    with_data = pod("keeper", volumes=volumes)
    with_data["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    kubectl.apply(claim("data"), with_data)
    kubectl.wait_for("pod/keeper", "condition=Ready", 90)
    assert kubectl.json("get", "pvc", "data")["status"]["phase"] == "Bound"
    place = on("m1", "ls -d /var/lib/bazaar-volumes/*_default_data").strip()
    on("m1", f"echo herring >{place}/fish")
    kubectl("delete", "pod", "keeper", "--wait")
    kubectl.apply(with_data)
    kubectl.wait_for("pod/keeper", "condition=Ready", 60)
    inside = "/proc/$(pgrep -f '[a]gnhost netexec' | tail -n 1)/root/data/fish"
    assert on("m1", f"cat {inside}").strip() == "herring"
    kubectl("delete", "pod", "keeper", "--wait")
    kubectl("delete", "pvc", "data")
    deadline = time.monotonic() + 60
    while kubectl.json("get", "pv")["items"] and time.monotonic() < deadline:
        time.sleep(1)
    assert on("m1", "ls /var/lib/bazaar-volumes").strip() == ""


def test_top_says_what_nodes_and_pods_take(kubectl: Kubectl):
    deadline = time.monotonic() + 120
    said = ""
    while not said and time.monotonic() < deadline:
        said = kubectl("top", "nodes", "--no-headers", check=False)
        time.sleep(1)
    assert said.split()[0] == "m1" and said.split()[3].endswith("Mi")
    services = kubectl.json("get", "apiservice", "v1beta1.metrics.k8s.io")
    assert "insecureSkipTLSVerify" not in services["spec"]
    assert "local-path-provisioner" in kubectl("top", "pods", "-A", "--no-headers")


def test_options_reach_the_machine_and_go_again(kubectl: Kubectl, folder: Path):
    (folder / "one.yaml").write_text(MANIFEST)
    apply(folder, OPTIONS)
    assert healthy(NAME)
    data = kubectl.json("get", "configmap", "-n", "stalls", "fish")["data"]
    assert data == {"kind": "herring"}
    environment = on("m1", "systemctl show -p Environment containerd kubelet")
    assert environment.count("HTTP_PROXY=http://10.1.0.9:3128") == 2
    hosts = on("m1", "cat /etc/containerd/certs.d/docker.io/hosts.toml")
    assert 'server = "https://registry-1.docker.io"' in hosts
    assert "--v=3" in on("m1", "tr '\\0' ' ' </proc/$(pidof kubelet)/cmdline")
    (folder / "one.yaml").write_text(MANIFEST.partition("---")[0])
    apply(folder, OPTIONS)
    assert kubectl("get", "configmap", "-n", "stalls", "fish", "--ignore-not-found") == ""
    assert "stalls" in kubectl("get", "namespaces")
    apply(folder, "")
    kubectl("wait", "--for=delete", "namespace/stalls", "--timeout=60s")
    assert "HTTP_PROXY" not in on("m1", "systemctl show -p Environment containerd kubelet")
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []
    assert "kube-dns" in kubectl("get", "service", "-n", "kube-system")


def test_labels_and_taints_go_and_others_stay(kubectl: Kubectl):
    kubectl("label", "node", "m1", "theirs=x")
    _, changes = clusters.plan(Request(name=NAME), QUIET)
    assert changes == []
    kubectl("label", "node", "m1", "node-role.kubernetes.io/control-plane-")
    _, changes = clusters.plan(Request(name=NAME), QUIET)
    assert [change.kind for change in changes] == ["labels"]
    clusters.apply(Request(name=NAME), QUIET)
    labels = kubectl.json("get", "node", "m1")["metadata"]["labels"]
    assert "theirs" in labels and "node-role.kubernetes.io/control-plane" in labels
