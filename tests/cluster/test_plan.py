"""From facts to changes, and from changes to scripts, without a machine."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from bazaar.cluster import addons
from bazaar.cluster.api import manifests_script, nodes_script
from bazaar.cluster.desired import desired
from bazaar.cluster.facts import Facts, NodeFacts, UnitFacts
from bazaar.cluster.parts import PHASES
from bazaar.cluster.plan import ApiPlan, Plan, changes, plan_api, plan_node
from bazaar.cluster.scripts import phases, script
from bazaar.model.record import replace
from tests.cluster.conftest import EXTRAS, cluster, context, done, fresh

SIZES = [(1, 0), (1, 1), (3, 2)]


@pytest.mark.parametrize(("planes", "workers"), SIZES)
def test_a_fresh_machine_gets_all_and_then_nothing(planes: int, workers: int):
    of = cluster(planes, workers)
    for node in of.nodes:
        here = context(of, node)
        wanted = desired(here)
        first = plan_node(here, wanted)
        assert {unit.name for unit in first.starts} == {unit.name for unit in wanted.units}
        assert len(first.sets) == 2 and not first.packages and not first.remove
        assert phases(first) == [
            p for p in PHASES if node.control_plane or p in (PHASES[0], "node")
        ]
        then = context(of, node, done(node, wanted))
        assert plan_node(then, desired(then)).empty


def test_only_what_differs_is_written_and_only_its_unit_started():
    of = cluster(1, 1)
    node = of.workers[0]
    wanted = desired(context(of, node))
    facts = done(node, wanted)
    path = "/etc/coredns/Corefile"
    changed = replace(facts, files={**facts.files, path: ("0" * 64, 0o644)})
    plan = plan_node(context(of, node, changed), wanted)
    assert [file.path for file in plan.write] == [path]
    # What was noted at its start is what is wanted: the file was changed behind our back.
    assert not plan.starts
    other = replace(facts, units={**facts.units, "coredns.service": UnitFacts("active", "old")})
    plan = plan_node(context(of, node, other), wanted)
    assert [unit.name for unit in plan.starts] == ["coredns.service"]
    assert phases(plan) == ["node"]


def test_a_key_that_others_could_read_is_written_again():
    of = cluster()
    node = of.nodes[0]
    wanted = desired(context(of, node))
    facts = done(node, wanted)
    path = "/etc/kubernetes/pki/sa.key"
    digest, mode = facts.files[path]
    assert mode == 0o600
    plan = plan_node(
        context(of, node, replace(facts, files={**facts.files, path: (digest, 0o644)})), wanted
    )
    assert [file.path for file in plan.write] == [path]


def test_what_is_no_more_wanted_goes():
    of = cluster(1, 1)
    node = of.workers[0]
    wanted = desired(context(of, node))
    facts = done(node, wanted)
    old = "/etc/bazaar-node/old"
    facts = replace(
        facts,
        files={**facts.files, old: ("0" * 64, 0o644)},
        units={**facts.units, "old.service": UnitFacts("active", "x")},
    )
    plan = plan_node(context(of, node, facts), wanted)
    assert (plan.remove, plan.stops) == ((old,), ("old.service",))
    assert f"rm -f -- {old}" in script(plan, wanted, context(of, node, facts), "prepare")


def test_a_unit_that_is_down_is_started_and_the_plan_says_why():
    of = cluster()
    node = of.nodes[0]
    wanted = desired(context(of, node))
    facts = done(node, wanted)
    stamp = facts.units["etcd.service"].started
    facts = replace(facts, units={**facts.units, "etcd.service": UnitFacts("failed", stamp)})
    one = plan_node(context(of, node, facts), wanted)
    plan = Plan(of, (one,), ApiPlan(""), False)
    assert [dataclasses.astuple(change) for change in changes(plan)] == [
        ("update", "unit", "cp1", "etcd", "it is failed")
    ]


def test_the_api_is_told_what_it_does_not_know():
    of = cluster(1, 1)
    facts: dict[str, Facts] = {node.name: fresh(node) for node in of.nodes}
    text, digest = addons.document(of, addons.Given(True, EXTRAS.has, "CA"))
    first = plan_api(of, of.nodes, facts, text, digest)
    assert first.manifests and first.missing == ("cp1", "w1")
    assert first.ranges == {"cp1": "10.244.0.0/24", "w1": "10.244.1.0/24"}
    ready = {
        node.name: NodeFacts(
            True,
            "v1.36.3",
            of.pod_range_of(node),
            of.labels_of(node),
            of.taints_of(node),
            own_labels=tuple(of.labels_of(node)),
            own_taints=of.taints_of(node),
        )
        for node in of.nodes
    }
    facts["cp1"] = replace(facts["cp1"], nodes=ready, addons=digest)
    assert plan_api(of, of.nodes, facts, text, digest).empty
    gone = {"cp1": ready["cp1"]}
    facts["cp1"] = replace(facts["cp1"], nodes=gone)
    assert plan_api(of, of.nodes, facts, text, digest).missing == ("w1",)


@pytest.mark.parametrize(("planes", "workers"), SIZES)
def test_every_script_is_a_shell_s(planes: int, workers: int):
    of = cluster(planes, workers)
    for node in of.nodes:
        here = context(of, node)
        wanted = desired(here)
        plan = plan_node(here, wanted)
        plan = replace(plan, packages=("haproxy",), remove=("/a b",), stops=("old.service",))
        texts = [script(plan, wanted, here, phase) for phase in PHASES]
        text, digest = addons.document(of, addons.Given(True, EXTRAS.has, "CA"))
        api = plan_api(of, of.nodes, {n.name: fresh(n) for n in of.nodes}, text, digest)
        texts += [manifests_script(api, here), nodes_script(api, here)]
        texts.append(wanted.files["/etc/bazaar-node/network"].content.decode())
        for one in texts:
            subprocess.run(["sh", "-n"], input=one, text=True, check=True)


def test_no_key_is_in_a_file_that_others_can_read():
    of = cluster(3, 1)
    for node in of.nodes:
        for file in desired(context(of, node)).files.values():
            secret = b"PRIVATE KEY" in file.content or b"client-key-data" in file.content
            assert not secret or file.mode == 0o600, file.path


def test_the_cluster_s_own_authority_signs_nowhere_but_here():
    of = cluster(3, 1)
    secret = context(of, of.nodes[0]).keys["authorities"]["ca"]["key"].encode()
    for node in of.nodes:
        for file in desired(context(of, node)).files.values():
            assert secret not in file.content
