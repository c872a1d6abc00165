"""A site that is a cluster as the supervisor sees it: rows, machines to balance over, staleness."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bazaar.cluster import pki, workloads
from bazaar.cluster.client import Access
from bazaar.cluster.deployed import Seen
from bazaar.errors import StateError
from bazaar.host import paths
from bazaar.model.site import Backend, BackendStatus
from bazaar.spec.resolved import ResolvedService
from bazaar.up import cluster_sites
from bazaar.up.cluster_sites import ClusterSites
from tests.cluster.test_client import Api

WEB = ResolvedService("web", "i", ("here", "paris"), replicas=3, port=80)
STARTED = "2026-11-22T20:53:42Z"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    one = Api(tmp_path)
    yield one
    one.stop()


def pod(name: str, node: str, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    """A pod as the API tells of it."""
    word = "True" if ready else "False"
    condition = {"type": "Ready", "status": word, "lastTransitionTime": "2026-11-22T20:53:44Z"}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": STARTED,
            "labels": {workloads.SERVICE: "web"},
            **metadata,
        },
        "spec": {"nodeName": node, "runtimeClassName": "gvisor"},
        "status": {
            "phase": "Running",
            "podIP": "10.244.0.9",
            "conditions": [condition],
            "containerStatuses": [{"restartCount": 1, "state": {"running": {}}}],
        },
    }


def seen(api: Api) -> Seen:
    pair = pki.issued(pki.Request("supervisor", "ca", "bazaar:x"), api.keys)
    authority = api.keys["authorities"]["ca"]["certificate"]
    url = f"https://127.0.0.1:{api.port}"
    whole = Access("x-paris", (url,), authority, pair["certificate"], pair["key"])
    return Seen(whole, {"n1": "10.1.0.1", "n2": "10.1.0.2"}, {"web": 31000})


def tell(api: Api, *pods: dict[str, Any]) -> None:
    api.handler.answer = json.dumps({"items": pods}).encode()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_machines_are_as_heavy_as_they_have_ready_pods(api: Api, state: Path):
    changes: list[None] = []
    taken = threading.Event()

    def on_change() -> bool:
        changes.append(None)
        return taken.is_set()

    tell(api, pod("web-a", "n1"), pod("web-b", "n1"), pod("web-c", "n2", ready=False))
    sites = ClusterSites("x", on_change)
    try:
        sites.store({"paris": cluster_sites.to_json(seen(api))})
        assert sites.hosts() == ["10.1.0.1", "10.1.0.2"] and sites.joined() == {"paris"}
        assert sites.backends(WEB) == [
            Backend("web/paris/n1", "paris", "10.1.0.1", 31000, weight=2),
            Backend("web/paris/n2", "paris", "10.1.0.2", 31000, draining=True),
        ]
        assert sites.backends(ResolvedService("web", "i", ("here",), port=80)) == []
        # Whoever could not take a change in is told again.
        until(lambda: len(changes) > 2)
        taken.set()
        time.sleep(3 * cluster_sites.PAUSE)
        before = len(changes)
        time.sleep(3 * cluster_sites.PAUSE)
        assert len(changes) == before
        tell(api, pod("web-a", "n1", deletionTimestamp=STARTED), pod("web-c", "n2"))
        until(lambda: [one.draining for one in sites.backends(WEB)] == [True, False])
        until(lambda: len(changes) == before + 1)
        path = api.handler.asked[-1][1]
        assert path.startswith("/api/v1/namespaces/x/pods?labelSelector=")
    finally:
        sites.end()


def test_a_row_says_what_a_pod_is(api: Api, state: Path):
    tell(api, pod("web-a", "n1"), pod("web-b", "n2", ready=False))
    sites = ClusterSites("x", lambda: True)
    try:
        sites.store({"paris": cluster_sites.to_json(seen(api))})
        balance = [
            BackendStatus("web/paris/n1", False, detail="Layer4 timeout"),
            BackendStatus("web/paris/n2", True),
        ]
        first, second = sites.rows(WEB, balance)
        assert first == {
            "id": "web/paris/web-a",
            "container": "web-a",
            "site": "paris",
            "node": "n1",
            "engine": "gvisor",
            "address": "10.244.0.9",
            "healthy": False,
            "phase": "healthy",
            "start_ms": 2000.0,
            "pid": None,
            "restarts": 1,
            "problem": "Layer4 timeout",
        }
        assert (second["healthy"], second["phase"]) == (False, "waiting")
        assert second["problem"] == "it does not answer its health check yet"
        (well, _) = sites.rows(WEB, [BackendStatus("web/paris/n1", True)])
        assert well["healthy"] and well["problem"] == ""
    finally:
        sites.end()


def test_it_is_known_again_and_believed_for_a_while(api: Api, state: Path, monkeypatch):
    monkeypatch.setattr(cluster_sites, "STALE", 1.0)
    tell(api, pod("web-a", "n1"))
    first = ClusterSites("x", lambda: True)
    first.store({"paris": cluster_sites.to_json(seen(api))})
    first.end()
    file = paths.bazaar("x") / "clusters.json"
    assert file.stat().st_mode & 0o777 == 0o600
    sites = ClusterSites("x", lambda: True)
    try:
        sites.load()
        assert [one.id for one in sites.backends(WEB)] == ["web/paris/n1"]
        api.stop()
        blind = ClusterSites("x", lambda: True)
        blind.load()
        hosts = [(one.address, one.draining) for one in blind.backends(WEB)]
        blind.end()
        assert hosts == [("10.1.0.1", False), ("10.1.0.2", False)]
        until(lambda: sites.joined() == set())
        (row,) = sites.rows(WEB, [])
        assert not row["healthy"] and "its API does not answer" in row["problem"]
        assert sites.backends(WEB)  # the balance's own checks tell whether it answers still
    finally:
        sites.end()


@pytest.mark.parametrize("content", ['{"paris": {"access": {}}}', '{"paris": 3}', '{"par'])
def test_what_is_cut_short_is_no_cluster_until_the_next_up(content: str, state: Path):
    file = paths.bazaar("x") / "clusters.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    sites = ClusterSites("x", lambda: True)
    sites.load()
    assert sites.hosts() == []
    with pytest.raises(StateError):
        cluster_sites.stored("x")
