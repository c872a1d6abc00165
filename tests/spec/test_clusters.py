"""Sites that are Kubernetes clusters: what is read, what is refused, and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bazaar.errors import SpecError
from bazaar.spec import (
    Bazaar,
    Cluster,
    Machine,
    Proxy,
    Site,
    check,
    loads,
    schema,
    to_mapping,
    to_yaml,
)
from bazaar.spec import cluster_values as values
from bazaar.spec.text import parse
from tests.spec.json_schema import accepts

FULL = """\
bazaar: fosdem
sites:
  paris:
    provider: hosts
    machines:
      - 10.0.0.1
      - w1=admin@10.0.0.2:2222
      - name: w2
        address: 10.0.0.3
        user: admin
        port: 2200
        key: keys/id
        known_hosts: keys/known
        jump: admin@10.9.9.9
        labels: {disk: fast, example.com/rack: 7}
        taints: ["dedicated=db:NoSchedule"]
        role: control-plane
        internal_address: 192.168.0.3
    cluster:
      version: 1.36.3
      control_planes: 1
      network: vxlan
      service_range: 10.97.0.0/16
      pod_range: 10.128.0.0/14
      domain: k8s.example
      endpoint: api.example.org
      api_port: 8443
      gvisor: false
      audit: false
      feature_gates: {SomeGate: true}
      extra_args: {kubelet: {v: 4}}
      registry_mirrors: {docker.io: http://10.0.0.9:5000, _default: [https://a, https://b]}
      proxy: {http: http://10.0.0.9:3128, no_proxy: .example.org}
      manifests: manifests/one.yaml
      hardening: cis
  here: {machines: 3, cluster: {}}
  empty:
    machines: 1
    cluster:
"""
WRONG = """\
bazaar: x
sites:
  a:
    provider: hosts
    machines:
      - {address: 10.0.0.2, jump: {address: 10.9.9.9, role: worker}, taints: [x], role: workr}
      - {name: w1}
    cluster:
      versoin: 1
      extra_args: {kubelt: {v: 4}}
      proxy: {htps: 1}
      feature_gates: {Foo: 1}
      pod_range: here
"""
MISTAKES = [
    "f:6:61  sites.a.machines[0].jump.role: there is no key 'role' here.",
    "f:6:79  sites.a.machines[0].taints[0]: 'x' is no taint: KEY[=VALUE]:EFFECT",
    "f:6:89  sites.a.machines[0].role: 'workr' is not control-plane, worker or etcd.",
    "f:7:9  sites.a.machines[1]: a machine needs an address",
    "f:9:7  sites.a.cluster.versoin: there is no key 'versoin' here. Did you mean 'version'?",
    "f:10:28  sites.a.cluster.extra_args.kubelt: there is no component 'kubelt'.",
    "f:11:15  sites.a.cluster.proxy.htps: there is no key 'htps' here. Did you mean 'https'?",
    "f:12:28  sites.a.cluster.feature_gates.Foo: 1 is not true or false",
    "f:13:18  sites.a.cluster.pod_range: 'here' is not a network",
]


def test_all_of_it_is_read_and_comes_back_from_yaml():
    bazaar = loads(FULL)
    paris, here, empty = bazaar.sites
    assert paris.cluster and here.cluster == empty.cluster == Cluster()
    assert isinstance(paris.machines, tuple) and here.machines == 3
    first, second, third = (one for one in paris.machines if isinstance(one, Machine))
    assert (first, second) == (
        Machine("10.0.0.1"),
        Machine("10.0.0.2", name="w1", user="admin", port=2222),
    )
    assert third.jump == Machine("10.9.9.9", user="admin") and third.labels["disk"] == "fast"
    assert third.key is not None and third.key.endswith("/keys/id") and third.key[0] == "/"
    assert paris.cluster.registry_mirrors["docker.io"] == ("http://10.0.0.9:5000",)
    assert paris.cluster.proxy == Proxy("http://10.0.0.9:3128", no_proxy=(".example.org",))
    assert loads(to_yaml(bazaar)) == bazaar
    assert check(bazaar) == bazaar


def test_the_schema_accepts_it():
    whole = schema()
    assert accepts(whole, parse(FULL, "").value)
    bazaar = loads(FULL)
    assert accepts(whole, json.loads(json.dumps(to_mapping(bazaar))))


def test_every_mistake_is_told_at_its_place():
    with pytest.raises(SpecError) as caught:
        loads(WRONG, "f")
    lines = str(caught.value).splitlines()
    assert len(lines) >= len(MISTAKES)
    for wanted, line in zip(MISTAKES, lines, strict=False):
        assert line.startswith(wanted), line
    assert not accepts(schema(), parse(WRONG, "").value)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (values.address, "$(reboot)"),
        (values.address, '10.0.0.1"'),
        (values.place, "-v@10.0.0.1"),
        (values.place, "10.0.0.1;reboot"),
        (values.version, "1.36.3\n"),
        (values.domain, "cluster.local\n"),
        (values.domain, f"{'a' * 64}.local"),
        (values.taint, "a=b:NoSchedule\n"),
        (values.user, "root\n"),
        (values.registry, ".."),
        (lambda value: values.label("disk", value), "fast\n"),
        (lambda value: values.label(value, "x"), "disk\n"),
    ],
)
def test_no_value_means_more_in_a_script_than_itself(read: Callable[[str], Any], value: str):
    with pytest.raises(ValueError, match=" is no| names no| is not"):
        read(value)


ON_CLUSTERS = """\
bazaar: kube-x
sites:
  a: {machines: 1, cluster: {gvisor: false}}
  b: {}
services:
  web:
    image: deb://bookworm
    kernel: own
    pids: 10
    volumes: ["data:/data", "/srv:/srv"]
  0web: {image: deb://bookworm}
  here: {image: deb://bookworm, sites: [b], kernel: own, pids: 10, volumes: ["/srv:/srv"]}
"""


def test_what_a_service_cannot_be_on_a_cluster_is_told_at_its_line():
    with pytest.raises(SpecError) as caught:
        loads(ON_CLUSTERS, "f")
    places = {
        "f:1:9": "'kube-x' is a namespace that Kubernetes has for itself",
        "f:8:13": "'own' needs gVisor, and a has `gvisor: false`",
        "f:9:5": "services.web.pids: a cluster has one limit for all its pods",
        "f:10:29": "'/srv' is a directory of this machine",
        "f:11:9": "a Service's name begins with a letter",
    }
    lines = str(caught.value).splitlines()
    for line, (place, words) in zip(lines, places.items(), strict=False):
        assert line.startswith(f"{place}  ") and words in line
    assert lines[len(places)] == "5 errors, nothing was changed."


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("a", cluster=Cluster()), "a cluster needs machines, as `machines: 3`"),
        (Site("a", "hosts", cluster=Cluster()), "as `machines: [10.0.0.1, 10.0.0.2]`"),
        (Site("a", "hosts", machines=3, cluster=Cluster()), "needs a list of machines"),
        (Site("a", machines=["10.0.0.1"], cluster=Cluster()), "needs a number of machines"),
        (Site("a", "hosts", machines=["10.0.0.1"]), "say `cluster: {}` as well"),
        (
            Site("a", "hosts", machines=["10.0.0.1", "b=10.0.0.1"], cluster=Cluster()),
            "'10.0.0.1' is machine 1 already",
        ),
        (
            Site("a", "hosts", machines=["10.0.0.1"], cluster=Cluster(etcd="separate")),
            "'separate' needs 1, 3 or 5 machines of the role etcd: there are 0",
        ),
        (
            Site(
                "a",
                "hosts",
                machines=[Machine("10.0.0.1", role="control-plane")],
                cluster=Cluster(control_planes=3),
            ),
            "3, but the role control-plane is that of 1",
        ),
        (Site("a", subnet="10.44.1.0/24", machines=1, cluster=Cluster()), "`pod_range`"),
    ],
)
def test_what_is_no_cluster_is_refused(site: Site, message: str):
    with pytest.raises(SpecError) as caught:
        check(Bazaar("x", sites=[site]))
    assert message in str(caught.value)
