"""Two real machines whose pods reach one another through VXLAN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bazaar.up import clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, bring, healthy, on, own_state, pod, service

pytestmark = [pytest.mark.xdist_group("cluster-vxlan"), pytest.mark.timeout(3600)]
NAME = "tunnel"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with own_state(tmp_path_factory, "vxlan") as folder:
        clusters.apply(Request(name=NAME, local=2, network="vxlan"), QUIET)
        bring(NAME)
        yield Kubectl(NAME, folder)


def test_pods_reach_one_another_through_the_tunnel(kubectl: Kubectl):
    assert healthy(NAME) and clusters.plan(Request(name=NAME), QUIET)[1] == []
    on_both = [pod("near", node="m1"), pod("far", node="m2"), service("far", "far")]
    kubectl.apply(*on_both)
    kubectl.wait_for("pod/near", "condition=Ready")
    kubectl.wait_for("pod/far", "condition=Ready")
    address = kubectl.json("get", "pod", "far")["status"]["podIP"]
    assert "dev bazaar-vxlan" in on("m1", f"ip route get {address}")
    for place in (f"{address}:8080", "far:80"):
        kubectl.reach("near", place)
    # A machine itself reaches them, too, and what it sends fits.
    url = f"http://{address}:8080"
    assert on("m1", f"curl -fsS --max-time 10 {url}/hostname").strip() == "far"
    on(
        "m1",
        "head -c 4500 /dev/urandom | base64 -w 0 >/tmp/big; curl -fsS --max-time 10 "
        f"'{url}/echo' -G --data-urlencode msg@/tmp/big | cmp - /tmp/big",
    )
    assert "mtu 1450" in on("m1", "ip link show cni0")
