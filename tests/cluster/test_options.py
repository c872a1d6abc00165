"""What options mean: labels, taints, manifests and what is pruned, on paper."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bazaar.cluster import addons
from bazaar.cluster.api import manifests_script, nodes_script
from bazaar.cluster.description import Cluster, check
from bazaar.cluster.desired import desired
from bazaar.cluster.facts import NodeFacts, parse
from bazaar.cluster.plan import ApiPlan, Plan, changes, plan_api, plan_node
from bazaar.errors import SpecError
from bazaar.model.record import replace
from tests.cluster.conftest import EXTRAS, cluster, context, done, fresh

OWN = "node-role.kubernetes.io/control-plane"
MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: default, labels: {a: b}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: two}}
"""


def told(of: Cluster, **facts: NodeFacts) -> ApiPlan:
    """The plan of the API's objects where it said this of nodes."""
    text, digest = addons.document(of, addons.Given(True, EXTRAS.has, "CA"))
    known = {node.name: fresh(node) for node in of.nodes}
    known["cp1"] = replace(known["cp1"], nodes=facts, addons=digest)
    return plan_api(of, of.nodes, known, text, digest)


def ready(of: Cluster, index: int, **more: object) -> NodeFacts:
    """A node as it should be, but for what is said."""
    node = of.nodes[index]
    labels, taints = of.labels_of(node), of.taints_of(node)
    pods = of.pod_range_of(node)
    whole = NodeFacts(True, "v1.36.3", pods, labels, taints, False, tuple(labels), taints)
    return replace(whole, **more)


def with_labels(labels: dict[str, str], taints: tuple[str, ...] = ()) -> Cluster:
    of = cluster(1, 1)
    first, second = of.nodes
    return replace(of, nodes=(first, replace(second, labels=labels, taints=taints)))


def test_labels_and_taints_come_and_go():
    of = with_labels({"disk": "fast"}, ("dedicated=db:NoSchedule",))
    cp1 = ready(of, 0)
    assert told(of, cp1=cp1, w1=ready(of, 1)).empty
    bare = ready(of, 1, labels={}, taints=(), own_labels=(), own_taints=())
    plan = told(of, cp1=cp1, w1=bare)
    assert plan.labels == {"w1": {"disk": "fast"}}
    assert plan.taints == {"w1": ("dedicated=db:NoSchedule",)}
    # Without them in the description, only what we put there goes.
    other = {"disk": "fast", "theirs": "x"}
    both = ("dedicated=db:NoSchedule", "theirs:NoSchedule")
    plain = cluster(1, 1)
    plan = told(plain, cp1=cp1, w1=ready(of, 1, labels=other, taints=both))
    assert plan.labels == {"w1": {"disk": None}}
    assert plan.taints == {"w1": ("dedicated=db:NoSchedule-",)}
    whole = Plan(plain, (), plan, fresh=False)
    assert [(one.kind, one.name, one.detail) for one in changes(whole)] == [
        ("labels", "w1", "disk-"),
        ("taints", "w1", "dedicated=db:NoSchedule-"),
    ]
    script = nodes_script(plan, context(plain, plain.nodes[0]))
    assert "taint --overwrite node w1 dedicated=db:NoSchedule-" in script
    assert json.dumps({"disk": None}) in script


def test_a_control_plane_is_tainted_when_it_gets_its_first_worker():
    alone, two = cluster(1), cluster(1, 1)
    before = ready(alone, 0)
    assert told(alone, cp1=before).empty
    plan = told(two, cp1=before, w1=ready(two, 1))
    assert plan.taints == {"cp1": (f"{OWN}:NoSchedule",)}
    after = told(alone, cp1=ready(two, 0))
    assert after.taints == {"cp1": (f"{OWN}:NoSchedule-",)}


def test_what_nodes_say_is_read():
    row = f"node w1 True v1.36.3 10.244.1.0/24 a=b,{OWN}= {OWN}=:NoSchedule,d=x:NoExecute - a -"
    known = parse(f"{row}\nend=facts\n", "w1").nodes["w1"]
    assert known.taints == (f"{OWN}:NoSchedule", "d=x:NoExecute")
    assert (known.own_labels, known.own_taints) == (("a",), ())


def test_manifests_get_the_label_and_are_known_again():
    of = cluster(manifests={"/a.yaml": MANIFEST})
    check(of)
    text, digest = addons.document(of, addons.Given(False, EXTRAS.has, "CA"))
    assert digest != addons.document(cluster(), addons.Given(False, EXTRAS.has, "CA"))[1]
    assert "app.kubernetes.io/managed-by: bazaar\n    a: b" in text or "a: b" in text
    assert {"ConfigMap.v1.", "Deployment.v1.apps"} <= set(addons.kinds(text))
    names = addons.identities(text)
    assert "- ConfigMap default one" in names and "apps Deployment default two" in names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: b", "/a.yaml is no YAML"),
        ("a: b", "/a.yaml: object 1 needs apiVersion, kind and metadata.name"),
        ("{apiVersion: v1, kind: $(x), metadata: {name: a}}", "object 1 needs"),
        ("{apiVersion: v1, kind: X, metadata: {name: a, labels: b}}", "object 1 needs"),
        ("{kind: List, items: [{kind: List, items: []}]}", "object 1 needs"),
        ("{kind: List, items: 1}", "object 1 needs"),
        ("a: 2026-13-45", "/a.yaml is no YAML: month must be"),
        ("[" * 5000, "/a.yaml is no YAML"),
    ],
)
def test_what_is_no_manifest_is_refused_before_anything_is_done(text: str, message: str):
    with pytest.raises(SpecError, match="/a.yaml") as caught:
        check(cluster(manifests={"/a.yaml": text}))
    assert message in str(caught.value)


def test_what_is_no_more_among_the_manifests_is_pruned(tmp_path: Path):
    """The script itself, with a kubectl that knows three objects of ours."""
    of = cluster(manifests={"/a.yaml": MANIFEST})
    text, digest = addons.document(of, addons.Given(False, EXTRAS.has, "CA"))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"""#!/bin/sh
echo "$*" >>{tmp_path}/calls
case "$*" in
  *"get configmap bazaar"*) echo ConfigMap.v1. Gone.v1.x.io Lost.v1.x.io ;;
  *"get ConfigMap.v1."*) printf 'v1 ConfigMap default one\\nv1 ConfigMap default old\\n' ;;
  *"get Gone.v1.x.io"*) [ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exit 1; }}
    printf 'x.io/v1 Gone - big\\n' ;;
  *"get Lost.v1.x.io"*) echo "error: the server doesn't have a resource type 'x'" >&2; exit 1 ;;
esac
""")
    kubectl.chmod(0o755)
    here = context(of, of.nodes[0])
    script = manifests_script(ApiPlan(digest, text), here)
    script = script.replace(here.program("kubectl"), str(kubectl))
    script = script.replace("/var/lib/bazaar-node", str(tmp_path))
    script = script.replace("/run/bazaar-node.lock", str(tmp_path / "lock"))
    subprocess.run(["sh"], input=script, text=True, check=True, timeout=30)
    calls = (tmp_path / "calls").read_text().splitlines()
    deleted = [line.partition(" delete ")[2] for line in calls if " delete " in line]
    assert deleted == [
        "-n default ConfigMap.v1. old --ignore-not-found --wait=false",
        "Gone.v1.x.io big --ignore-not-found --wait=false",
    ]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"kubectl", "calls", "asked", "said", "lock"}


def test_a_mirror_s_change_starts_nothing_again_and_a_proxy_s_does():
    of = cluster(1, 1)
    node = of.workers[0]
    facts = done(node, desired(context(of, node)))
    mirrored = replace(of, registry_mirrors={"docker.io": ("http://10.1.0.9:5000",)})
    here = context(mirrored, node, facts)
    plan = plan_node(here, desired(here))
    paths = [file.path for file in plan.write]
    assert "/etc/containerd/certs.d/docker.io/hosts.toml" in paths and not plan.starts
    proxied = replace(of, proxy={"https": "http://10.1.0.9:3128"})
    here = context(proxied, node, facts)
    plan = plan_node(here, desired(here))
    assert [unit.name for unit in plan.starts] == ["containerd.service", "kubelet.service"]
    back = context(of, node, done(node, desired(here)))
    plan = plan_node(back, desired(back))
    assert len(plan.remove) == 2 and len(plan.starts) == 2
