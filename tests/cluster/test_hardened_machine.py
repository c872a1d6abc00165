"""The CIS profile on a real machine: it works, and refuses what it is to refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bazaar.up import cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, bring, healthy, on, own_state, pod

pytestmark = [pytest.mark.xdist_group("cluster-hardened"), pytest.mark.timeout(3600)]
NAME = "hard"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with own_state(tmp_path_factory, "hardened") as folder:
        request = Request(name=NAME, local=1, options={"hardening": "cis"})
        clusters.apply(request, QUIET)
        bring(NAME)
        yield Kubectl(NAME, folder)


def test_it_works_and_its_plan_is_empty(kubectl: Kubectl):
    assert healthy(NAME) and clusters.plan(Request(name=NAME), QUIET)[1] == []
    kubectl.apply(pod("web"))
    kubectl.wait_for("pod/web", "condition=Ready")
    place = "deployment/local-path-provisioner"
    kubectl("-n", "kube-system", "rollout", "status", place, "--timeout=60s")


def test_nobody_learns_more_than_whether_it_works(kubectl: Kubectl):
    server = cluster_request.known(NAME).server
    code = "curl -ks -o /dev/null -w '%{http_code}' "
    assert on("m1", f"{code} {server}/readyz") == "200"
    assert on("m1", f"{code} {server}/version") == "401"


def test_a_pod_that_asks_for_more_than_usual_is_refused(kubectl: Kubectl):
    with pytest.raises(AssertionError, match='violates PodSecurity "baseline'):
        kubectl("run", "greedy", "--image=x", "--privileged", "--dry-run=server", "-o", "name")
    usual = kubectl("run", "usual", "--image=x", "--dry-run=server", "-o", "name")
    assert usual.strip() == "pod/usual"


def test_keys_and_settings_are_root_s_alone(kubectl: Kubectl):
    found = on(
        "m1",
        "find /etc/kubernetes /etc/cni/net.d /var/lib/kubelet/config.yaml /var/lib/kube-proxy "
        "/etc/systemd/system/kube*.service -type f -perm /077",
    )
    assert found == ""
    assert "2" in on("m1", "grep ^Seccomp: /proc/$(pgrep '[a]gnhost' | head -n 1)/status")
