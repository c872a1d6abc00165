"""Edges on paper and in HAProxy's own judgement, and the names that follow who answers."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from bazaar.cluster import edges as machines
from bazaar.cluster import store
from bazaar.cluster.description import Node
from bazaar.model.machine import Machine
from bazaar.model.record import replace
from bazaar.model.site import Health, Publish
from bazaar.spec.resolved import (
    ResolvedBazaar,
    ResolvedService,
    ResolvedShield,
    ResolvedSite,
)
from bazaar.up import edges
from tests.cluster.conftest import cluster

WEB = ResolvedService(
    "web",
    "i",
    ("here", "paris", "rome"),
    port=80,
    mode="http",
    health=Health("http"),
    publish=(Publish("127.0.0.1", 8080), Publish("127.0.0.1", 8081)),
)
QUIET = ResolvedService("quiet", "i", ("paris",), port=81, publish=(Publish("127.0.0.1", 81),))
INSIDE = ResolvedService("inside", "i", ("paris",), port=82)
BAZAAR = ResolvedBazaar(
    "x",
    sites=(
        ResolvedSite("here"),
        ResolvedSite("paris", cluster="x-paris"),
        ResolvedSite("rome", cluster="x-rome"),
    ),
    services=(WEB, QUIET, INSIDE),
    domain="fosdem.example",
)
PORTS = {"paris": {"web": 30001, "quiet": 30002, "inside": 30003}, "rome": {"web": 31001}}


@pytest.fixture
def clusters(state: Path) -> None:
    store.save(replace(cluster(3, 2), name="x-paris"), local=False)
    # Its machine has an address inside and another one outside.
    node = Node("r1", Machine("r1", "10.2.0.11"), True, 0, address="192.168.7.11")
    store.save(replace(cluster(1), name="x-rome", nodes=(node,)), local=False)


def test_two_machines_of_each_are_edges_with_their_own_pods_first(clusters: None):
    found = edges.files(BAZAAR, PORTS)
    assert {site: list(each) for site, each in found.items()} == {
        "paris": ["w1", "w2"],
        "rome": ["r1"],
    }
    one = found["paris"]["w1"]
    assert one["edges"] == "10.1.0.14 8080\n10.1.0.15 8080\n10.2.0.11 8080\n"
    assert one["names"] == "fosdem.example web quiet\n"
    assert "bind 10.1.0.14" in one["zone.conf"] and "fosdem.example:53" in one["zone.conf"]
    text = one["haproxy.cfg"]
    assert "bind 10.1.0.14:8080\n    bind 10.1.0.14:8081\n" in text
    assert "inside" not in text
    servers = {line.split()[1]: line for line in text.splitlines() if "server " in line}
    assert "10.1.0.14:30001 check" in servers["web:paris:w1"]
    assert "backup" not in servers["web:paris:w2"] and " backup " in servers["web:rome:r1"]
    # A machine without pods of it is not asked, even where a service has no check of its own.
    assert " check " in servers["quiet:paris:w1"]
    rome = found["rome"]["r1"]["haproxy.cfg"]
    assert "bind 192.168.7.11:8080\n" in rome
    assert "server web:rome:r1 192.168.7.11:31001 check" in rome
    assert "10.2.0.11:31001 check" in servers["web:rome:r1"]
    backups = [line for line in rome.splitlines() if " backup " in line]
    assert len(backups) == 4


def test_haproxy_takes_it(clusters: None, tmp_path: Path):
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if haproxy is None:
        pytest.skip("needs haproxy")
    (tmp_path / "empty").mkdir()
    (tmp_path / "servers.state").touch()
    for each in edges.files(BAZAAR, PORTS).values():
        for content in each.values():
            (tmp_path / "haproxy.cfg").write_text(content["haproxy.cfg"])
            command = [haproxy, "-c", "-q", "-C", str(tmp_path), "-f", "haproxy.cfg"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_without_anything_published_there_are_none(clusters: None):
    inside = ResolvedBazaar("x", sites=BAZAAR.sites, services=(INSIDE,))
    assert edges.files(inside, PORTS) == {"paris": {}, "rome": {}}
    there = edges.files(ResolvedBazaar("x", sites=BAZAAR.sites, services=(WEB,)), PORTS)
    assert "zone.conf" not in there["paris"]["w1"]


def test_what_changes_an_edge_is_seen(clusters: None):
    before = machines.digest(edges.files(BAZAAR, PORTS)["paris"]["w1"])
    assert before == machines.digest(edges.files(BAZAAR, PORTS)["paris"]["w1"])
    moved = {**PORTS, "rome": {"web": 31002}}
    assert machines.digest(edges.files(BAZAAR, moved)["paris"]["w1"]) != before


def test_a_certificate_goes_with_its_service(clusters: None, tmp_path: Path):
    pem = tmp_path / "web.pem"
    pem.write_text("a key")
    web = dataclasses.replace(WEB, certificate=str(pem), certificate_digest="ab")
    one = edges.files(ResolvedBazaar("x", sites=BAZAAR.sites, services=(web,)), PORTS)
    files = one["paris"]["w1"]
    assert files["certificates/web.pem"] == "a key"
    assert "ssl crt 'certificates/web.pem'" in files["haproxy.cfg"]


def test_names_are_of_those_that_answer_or_of_all(clusters: None, tmp_path: Path):
    content = edges.files(BAZAAR, PORTS)["paris"]["w1"]
    script = tmp_path / "names.sh"
    script.write_text(content["names.sh"])
    script.chmod(0o755)
    (tmp_path / "names").write_text(content["names"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "edges").write_text(f"127.0.0.1 {port}\n127.0.0.77 {port}\n")
        subprocess.run([script, "once"], check=True, timeout=30)
    zone = (tmp_path / "zone").read_text().splitlines()
    assert zone[:2] == ["$ORIGIN fosdem.example.", "$TTL 5"]
    assert zone[2].startswith("@ IN SOA ns1 hostmaster 1")
    assert "ns2 IN A 127.0.0.77" in zone
    assert zone[-2:] == ["web IN A 127.0.0.1", "quiet IN A 127.0.0.1"]
    subprocess.run([script, "once"], check=True, timeout=30)
    zone = (tmp_path / "zone").read_text().splitlines()
    assert [line for line in zone if line.startswith("web")] == [
        "web IN A 127.0.0.1",
        "web IN A 127.0.0.77",
    ]


def test_an_edge_has_the_bazaars_shield_which_lets_the_clusters_own_in(clusters: None):
    guarded = dataclasses.replace(BAZAAR, shield=ResolvedShield(rate=500, allow=("192.0.2.0/24",)))
    words = edges.files(guarded, PORTS)["paris"]["w1"]["shield"].split()
    assert words[0] == "10.1.0.14"
    assert words[1:7] == ["--rate", "500/s", "--burst", "4000", "--block-for", "60s"]
    allowed = {words[n + 1] for n, word in enumerate(words) if word == "--allow"}
    assert allowed >= {"192.0.2.0/24", "10.1.0.11", "10.2.0.11", "10.244.0.0/16"}
    served = {words[n + 1] for n, word in enumerate(words) if word == "--port"}
    assert served >= {"tcp/8080", "tcp/30001", "tcp/31001", "tcp/22", "tcp/6443", "udp/53"}
    off = dataclasses.replace(guarded, shield=ResolvedShield(mode="off"))
    assert "shield" not in edges.files(off, PORTS)["paris"]["w1"]
    dry = dataclasses.replace(guarded, shield=ResolvedShield(mode="dry-run"))
    assert "--dry-run" in edges.files(dry, PORTS)["rome"]["r1"]["shield"]
