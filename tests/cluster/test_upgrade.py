"""From one minor version to the next while somebody asks all the time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from bazaar.cluster import binaries
from bazaar.up import cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import IMAGE, QUIET, Kubectl, bring, healthy, on, own_state, service, ssh

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(5400)]
NAME = "older"
NEWER, OLDER = binaries.VERSIONS[0], next(v for v in binaries.VERSIONS if v.startswith("1.35."))
POLL = """
while [ ! -e /run/polled-enough ]; do
  curl -fsS -o /dev/null --max-time 2 http://{address}/hostname && echo good || echo bad
  sleep 0.02
done
"""


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with own_state(tmp_path_factory, "cluster") as folder:
        clusters.apply(Request(name=NAME, local=3, control_planes=1, version=OLDER), QUIET)
        bring(NAME)
        yield Kubectl(NAME, folder)


def deployment() -> dict[str, Any]:
    """Two pods on two machines; one that leaves is asked no more before it ends."""
    labels = {"app": "web"}
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["netexec", "--http-port=8080"],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "topologySpreadConstraints": [spread]},
            },
        },
    }


def test_nobody_notices_an_upgrade(kubectl: Kubectl):
    kubectl.apply(
        deployment(),
        service("web", "web"),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        },
    )
    kubectl.wait_for("deployment/web", "condition=Available")
    address = kubectl.json("get", "service", "web")["spec"]["clusterIP"]
    # What a Service's rules reach may be a moment behind its pods.
    on("m1", f"timeout 30 sh -c 'until curl -fsS --max-time 2 http://{address}/; do sleep 1; done'")
    poller = subprocess.Popen(
        ssh("m1", f"bash -c '{POLL.format(address=address)}'"), stdout=subprocess.PIPE, text=True
    )
    try:
        outcome = cluster_life.upgrade(NAME, NEWER, QUIET)
    finally:
        on("m1", "touch /run/polled-enough")
        said, _ = poller.communicate(timeout=30)
    answers = said.split()
    assert len(answers) > 100
    assert answers.count("bad") == 0, [n for n, one in enumerate(answers) if one == "bad"]
    assert outcome.cluster.version == NEWER and healthy(NAME)
    versions = [
        one["status"]["nodeInfo"]["kubeletVersion"] for one in kubectl.json("get", "nodes")["items"]
    ]
    assert versions == [f"v{NEWER}"] * 3
    assert not [
        one for one in kubectl.json("get", "nodes")["items"] if "unschedulable" in one["spec"]
    ]
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []
    assert cluster_request.known(NAME).version == NEWER
