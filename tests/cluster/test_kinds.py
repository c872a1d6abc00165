"""Other kinds of clusters, on paper: etcd apart, two families of addresses, a mesh of WireGuard."""

from __future__ import annotations

import base64
import subprocess
import time

import pytest

from bazaar.cluster import addons, checks, pki
from bazaar.cluster.description import Cluster, Node, check
from bazaar.cluster.desired import Desired, desired
from bazaar.cluster.parts import PHASES, Context
from bazaar.cluster.plan import plan_api, plan_node
from bazaar.cluster.scripts import phases, script
from bazaar.errors import SpecError
from bazaar.model.machine import Machine
from bazaar.model.record import replace
from tests.cluster.conftest import EXTRAS, PROGRAMS, cluster, fresh
from tests.cluster.test_golden import compare

DUAL = {"pod_range": "10.244.0.0/16,fd00:244::/48", "service_range": "10.96.0.0/16,fd00:96::/112"}


def context(of: Cluster, node: Node, way: str = "routes") -> Context:
    """As the one of `conftest`, with keys of this cluster."""
    keys = pki.renewed({}, of, time.time())
    return Context(of, node, fresh(node), way, keys, PROGRAMS, EXTRAS, of.gvisor)


def apart() -> Cluster:
    """Two control planes' worth of nothing else: one control plane, a worker, three for etcd."""
    of = cluster(1, 1)
    stores = tuple(
        Node(f"e{n}", Machine(f"e{n}", f"10.1.0.{30 + n}"), False, 10 + n, etcd=True)
        for n in (1, 2, 3)
    )
    return replace(of, nodes=(*of.nodes, *stores))


def dual() -> Cluster:
    of = cluster(1, 1, **DUAL)
    nodes = (replace(node, address6=f"fd00:1::{11 + n}") for n, node in enumerate(of.nodes))
    return replace(of, nodes=tuple(nodes))


def names(wanted: Desired) -> list[str]:
    return [unit.name.removesuffix(".service") for unit in wanted.units]


def test_etcd_apart_runs_there_and_nowhere_else():
    of = apart()
    check(of)
    wanted = desired(context(of, of.nodes[2]))
    assert names(wanted) == ["etcd"] and wanted.packages == ()
    assert not any("kubelet" in path or "/cni/" in path for path in wanted.files)
    plan = plan_node(context(of, of.nodes[2]), wanted)
    assert phases(plan) == ["prepare", "etcd"]
    here = context(of, of.nodes[2])
    text = script(plan, wanted, here, "etcd")
    assert "e1=https://10.1.0.31:2380,e2=https://10.1.0.32:2380,e3=https://10.1.0.33:2380" in text
    first = desired(context(of, of.nodes[0]))
    assert "etcd" not in names(first) and "kube-apiserver" in names(first)
    unit = first.files["/etc/systemd/system/kube-apiserver.service"].content.decode()
    servers = ",".join(f"https://10.1.0.{30 + n}:2379" for n in (1, 2, 3))
    assert f"--etcd-servers={servers} " in unit
    assert "/etc/kubernetes/pki/etcd/server.key" not in first.files
    compare("etcd-apart.txt", wanted.files["/etc/systemd/system/etcd.service"].content.decode())


def test_a_machine_for_etcd_is_no_node():
    of = apart()
    text, digest = addons.document(of, addons.Given(True, EXTRAS.has, "CA"))
    plan = plan_api(of, of.nodes, {node.name: fresh(node) for node in of.nodes}, text, digest)
    assert plan.missing == ("cp1", "w1") and set(plan.ranges) == {"cp1", "w1"}
    assert "10.1.0.31" not in text
    assert (
        "10.1.0.31"
        not in desired(context(of, of.nodes[0])).files["/etc/bazaar-node/network"].content.decode()
    )
    with pytest.raises(SpecError, match="2 machines for etcd: 1, 3 or 5"):
        check(replace(of, nodes=of.nodes[:-1]))


def test_both_families_reach_all_that_has_addresses():
    of = dual()
    check(of)
    files = desired(context(of, of.nodes[1])).files
    unit = files["/etc/systemd/system/kubelet.service"].content.decode()
    assert "--node-ip=10.1.0.12,fd00:1::12" in unit
    assert b"fd00:244:0:1::/64" in files["/etc/cni/net.d/10-bazaar.conflist"].content
    proxy = files["/var/lib/kube-proxy/config.yaml"].content.decode()
    assert "clusterCIDR: 10.244.0.0/16,fd00:244::/48" in proxy
    server = desired(context(of, of.nodes[0])).files["/etc/systemd/system/kube-apiserver.service"]
    assert b"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112" in server.content
    text, digest = addons.document(of, addons.Given(True, EXTRAS.has, "CA"))
    plan = plan_api(of, of.nodes, {node.name: fresh(node) for node in of.nodes}, text, digest)
    assert plan.ranges["w1"] == "10.244.1.0/24,fd00:244:0:1::/64"
    assert of.dns_ip == "10.96.0.10"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({**DUAL, "service_range": "10.96.0.0/16"}, "dual stack: the ranges of pods and of"),
        ({**DUAL, "pod_range": "10.244.0.0/16,fd00:96::/48"}, "overlap"),
        ({**DUAL, "pod_range": "10.244.0.0/16,fd00:244::/64"}, "no room for a /64"),
        ({**DUAL, "service_range": "10.96.0.0/16,fd00:96::/64"}, "at most a /108"),
        ({**DUAL, "pod_range": "10.244.0.0/16,here"}, "dual stack: "),
    ],
)
def test_ranges_that_do_not_go_together_are_refused(more: dict[str, str], message: str):
    with pytest.raises(SpecError, match=message):
        check(cluster(1, 1, **more))


def test_an_address_that_is_none_gets_into_no_script():
    of = dual()
    odd = replace(of.nodes[1], address6="fd00::1;reboot")
    with pytest.raises(SpecError, match="w1: 'fd00::1;reboot', as it says, is no IPv6 address"):
        check(replace(of, nodes=(of.nodes[0], odd)))


def test_a_machine_without_ipv6_is_refused_where_it_is_needed():
    of = cluster(1, 1, **DUAL)
    with pytest.raises(SpecError, match="no way out by IPv6"):
        checks.refuse(of.nodes, of, {node.name: fresh(node) for node in of.nodes}, {})


def test_the_network_s_script():
    shown: list[str] = []
    for families, of in ((4, cluster(1, 2)), (6, dual())):
        seen: set[str] = set()
        for way in ("routes", "vxlan", "wireguard"):
            here = context(replace(of, network=way), of.nodes[0], way)
            text = desired(here).files["/etc/bazaar-node/network"].content.decode()
            subprocess.run(["sh", "-n"], input=text, text=True, check=True)
            head, end, ways = text.partition("\nEND\n")
            shown += [f"==> {families} <==\n{head}{end}"] if not seen else []
            shown.append(f"==> {families} {way} <==\n{ways}")
            seen.add(head)
        assert len(seen) == 1  # what pods' packets are called is no matter of the way
    compare("networks.txt", "".join(shown))


def test_a_mesh_has_a_key_for_each_and_they_stay():
    of = cluster(3, 2, network="wireguard")
    first = pki.renewed({}, of, time.time())
    again = pki.renewed(first, of, time.time())
    assert again["wireguard"] == first["wireguard"]
    assert set(first["wireguard"]) == {node.name for node in of.nodes}
    assert all(len(base64.b64decode(one["key"])) == 32 for one in first["wireguard"].values())
    here = context(of, of.nodes[0], "wireguard")
    wanted = desired(here)
    file = wanted.files["/etc/bazaar-node/wireguard.conf"]
    assert file.mode == 0o600 and file.content.count(b"[Peer]") == 4
    assert here.keys["wireguard"]["cp1"]["key"].encode() in file.content
    others = [one["key"] for name, one in here.keys["wireguard"].items() if name != "cp1"]
    assert not any(key.encode() in one.content for key in others for one in wanted.files.values())
    assert "wireguard-tools" in wanted.packages
    assert phases(plan_node(here, wanted)) == list(PHASES)
