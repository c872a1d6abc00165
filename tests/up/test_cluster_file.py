"""A description's clusters: what is asked for, and that one which fails stops no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bazaar.cluster import store
from bazaar.errors import BazaarError, UsageError
from bazaar.up import cluster_file, cluster_request, clusters
from tests.spec.test_clusters import FULL


@pytest.fixture
def file(tmp_path: Path, state: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n"
    (tmp_path / "manifests" / "one.yaml").write_text(manifest)
    path = tmp_path / "fosdem.yaml"
    path.write_text(FULL)
    return path


def test_each_site_is_a_cluster_with_all_that_is_said(file: Path):
    paris, here, empty = cluster_file.requests(str(file))
    assert [one.name for one in (paris, here, empty)] == [
        "fosdem-paris",
        "fosdem-here",
        "fosdem-empty",
    ]
    assert (here.local, empty.local, paris.local) == (3, 1, None)
    cluster = cluster_request.resolved(paris, "fosdem-paris")
    assert [(node.name, node.control_plane) for node in cluster.nodes] == [
        ("ip-10-0-0-1", False),
        ("w1", False),
        ("w2", True),
    ]
    w2 = cluster.nodes[2]
    assert w2.machine.jump is not None and w2.machine.jump.address == "10.9.9.9"
    assert w2.ip == "192.168.0.3" and w2.taints == ("dedicated=db:NoSchedule",)
    assert (cluster.domain, cluster.api_port, cluster.hardening) == ("k8s.example", 8443, "cis")
    assert cluster.proxy == {"http": "http://10.0.0.9:3128", "no_proxy": ".example.org"}
    assert "ConfigMap" in next(iter(cluster.manifests.values()))
    store.save(cluster, local=False)
    assert store.load("fosdem-paris") is not None
    assert cluster_request.resolved(paris, "fosdem-paris").nodes == cluster.nodes


def test_what_a_cluster_does_not_survive_is_refused(file: Path):
    (paris,) = cluster_file.requests(str(file), "paris")
    store.save(cluster_request.resolved(paris, "fosdem-paris"), local=False)
    file.write_text(FULL.replace("10.128.0.0/14", "10.64.0.0/14"))
    (paris,) = cluster_file.requests(str(file), "paris")
    with pytest.raises(UsageError, match=r"its pod range is 10\.128\.0\.0/14 and does not become"):
        cluster_request.resolved(paris, "fosdem-paris")
    file.write_text(FULL.replace("role: control-plane", "role: worker"))
    (paris,) = cluster_file.requests(str(file), "paris")
    with pytest.raises(UsageError, match="w2 is a machine of the role control-plane"):
        cluster_request.resolved(paris, "fosdem-paris")


def test_one_that_fails_stops_no_other(file: Path, monkeypatch: pytest.MonkeyPatch):
    requests = cluster_file.requests(str(file))
    monkeypatch.setattr(clusters, "_make_machines", lambda *_: None)
    monkeypatch.setattr(cluster_request, "local_machines", lambda _: [])

    async def applied(prepared: clusters.Prepared, progress: object) -> clusters.Outcome:
        if prepared.cluster.name == "fosdem-here":
            raise BazaarError("no luck")
        return clusters.Outcome(prepared.cluster, [], 0.0)

    monkeypatch.setattr(clusters, "_applied", applied)
    results = clusters.apply_all(requests, str)
    assert list(results) == ["fosdem-paris", "fosdem-here", "fosdem-empty"]
    assert isinstance(results["fosdem-here"], BazaarError)
    assert isinstance(results["fosdem-paris"], clusters.Outcome)


def test_the_plan_shows_them_by_cluster(file: Path):
    from bazaar.cli.cluster import command

    file.write_text(FULL.replace("paris:", "paris: {machines: 1, cluster: {}}\n  other:"))
    done = CliRunner().invoke(command, ["plan", str(file), "--site", "paris"])
    assert done.stdout.splitlines()[0] == "fosdem-paris:" and "machine 1" in done.stdout
    words = ["plan", str(file), "--site", "here", "-o", "json"]
    told = json.loads(CliRunner().invoke(command, words).stdout)
    assert [one["cluster"] for one in told["clusters"]] == ["fosdem-here"]
    assert len(told["clusters"][0]["changes"]) == 4
    with pytest.raises(UsageError, match="there is no site x"):
        cluster_file.requests(str(file), "x")
