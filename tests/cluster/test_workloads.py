"""Services as objects: all of one as it is, and what makes another digest of them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bazaar.cluster import workloads
from bazaar.cluster.client import listing, place
from bazaar.cluster.deployed import digests
from bazaar.cluster.workloads import Claim, Made, Workload
from bazaar.model.container import Limits
from bazaar.model.record import replace
from bazaar.model.site import Health
from tests.cluster.test_golden import compare

FULL = Workload(
    bazaar="fosdem",
    name="store",
    image="deb://bookworm?packages=python3",
    replicas=2,
    entrypoint=("/usr/bin/python3",),
    command=("-m", "http.server"),
    port=8000,
    health=Health("http", "/ready", interval=0.5, timeout=1.2),
    environment=(("PORT", "8000"),),
    secrets=(("TOKEN", "hunter2"),),
    claims=(Claim("data", "/data"), Claim("books", "/books", True)),
    files=(("/etc/greeting", "hello\n"),),
    limits=Limits(memory=1 << 28, cpus=0.5),
    working_directory="/srv",
    user="nobody",
    alone=True,
)
PLAIN = Workload("fosdem", "web", "deb://bookworm?packages=apache2", own_kernel=False)
TWICE = replace(PLAIN, name="twice", replicas=2)


def test_a_service_with_everything_and_one_with_nothing():
    made = Made("bazaar.local/python3:0123456789ab", (65534, 65533))
    objects = [
        workloads.namespace("fosdem"),
        *workloads.reader("fosdem", "bazaar:fosdem"),
        *workloads.claims(FULL),
        *(workloads.settled(one, made) for one in workloads.objects(FULL)),
        *(workloads.settled(one, Made("web:1")) for one in workloads.objects(PLAIN)),
        *(one for one in workloads.objects(TWICE) if one["kind"] != "Deployment"),
    ]
    compare("services.yaml", yaml.safe_dump_all(objects, sort_keys=False))


@pytest.mark.parametrize(
    "change",
    [
        {"image": "other"},
        {"replicas": 3},
        {"secrets": (("TOKEN", "hunter3"),)},
        {"files": ()},
        {"user": "daemon"},
        {"own_kernel": False},
        {"health": Health("tcp")},
        {"claims": ()},
    ],
)
def test_what_changes_a_service_is_seen(change: dict[str, Any]):
    assert digests(by_path(FULL)) != digests(by_path(replace(FULL, **change)))


def by_path(workload: Workload) -> dict[str, Any]:
    return {place(one): one for one in workloads.objects(workload)}


def test_what_is_settled_later_changes_nothing():
    made = {
        path: workloads.settled(one, Made("x:1", (1, 2))) for path, one in by_path(FULL).items()
    }
    assert digests(made) == digests(by_path(FULL))


def test_a_secrets_value_stands_in_its_secret_alone():
    for one in workloads.objects(FULL):
        text = yaml.safe_dump(one)
        assert "hunter2" not in text
        assert ("aHVudGVyMg==" in text) == (one["kind"] == "Secret")


@pytest.mark.parametrize(
    ("version", "kind", "namespace", "path"),
    [
        ("v1", "Pod", "fosdem", "/api/v1/namespaces/fosdem/pods"),
        ("apps/v1", "Deployment", "a", "/apis/apps/v1/namespaces/a/deployments"),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "a",
            "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies",
        ),
        ("v1", "Namespace", "", "/api/v1/namespaces"),
        ("v1", "ConfigMap", "a/../b", "/api/v1/namespaces/a%2F..%2Fb/configmaps"),
    ],
)
def test_where_the_api_has_a_kind(version: str, kind: str, namespace: str, path: str):
    assert listing(version, kind, namespace) == path
