"""One bazaar here and on a cluster: one front over both, changed, torn apart and taken away."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from bazaar.cluster import vault
from tests.e2e.conftest import SERVER, Polling, get
from tests.e2e.test_front import free_port
from tests.host.conftest import need_machines
from tests.site.test_names import NO_SUCH_NAME, A, question

pytestmark = [pytest.mark.xdist_group("e2e-clusters"), pytest.mark.timeout(1200)]
TEXT = """
domain: clusters.example
sites:
  here: {}
  paris: {machines: 1, cluster: {}}
services:
  web:
    image: deb://bookworm?packages=python3
    command: [python3, /server.py]
    files: {/server.py: {file: SERVER}}
    port: 8000
    mode: http
    replicas: 2
    publish: PORT
    environment: {VERSION: "1"}
  store:
    image: deb://bookworm?packages=python3
    command: [python3, -c, "import os; print('seen', os.environ['NOTE_SECRET'][::-1], flush=True);
      open('/data/kept', 'a').write('x'); import http.server;
      http.server.test(HandlerClass=http.server.SimpleHTTPRequestHandler, port=8001)"]
    working_directory: /data
    port: 8001
    mode: http
    sites: [paris]
    kernel: shared
    user: nobody
    volumes: ["data:/data"]
    environment: {NOTE_SECRET: {env: NOTE_SECRET}}
"""


PORT = free_port()


def text(**changes: str) -> str:
    whole = TEXT.replace("PORT", str(PORT))
    for old, new in changes.items():
        assert old in whole
        whole = whole.replace(old, new)
    return whole


@pytest.fixture(scope="module")
def bazaar(instance):
    need_machines()
    (instance.folder / "server.py").write_text(SERVER)
    instance.environment[vault.KEY_FILE] = str(instance.folder / "key")
    instance.environment["NOTE_SECRET"] = "hunter2"
    instance.write(text(SERVER="server.py"))
    try:
        instance.up()
        yield instance
    finally:
        instance.run("down", instance.name, "--volumes", "--yes", check=False)
        name = f"{instance.name}-paris"
        instance.run("cluster", "reset", "--name", name, "--yes", check=False)


def url(bazaar, service="web"):
    return bazaar.service(service)["url"]


def asked(server, name):
    """A name server's whole answer (RFC 1035, 4.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(question(name, A), (server, 53))
        return client.recv(512)


def on_cluster(bazaar, *words):
    name = f"{bazaar.name}-paris"
    shell = bazaar.run("cluster", "shell", "--name", name, "--", "kubectl", *words)
    return shell.stdout


def test_all_replicas_answer_at_one_address(bazaar):
    web = bazaar.service("web")
    assert (web["healthy"], web["wanted"]) == (4, 4)
    expected = {f"web-here-{number}" for number in (1, 2)}
    pods = [row["container"] for row in web["replicas"] if row["site"] == "paris"]
    said: set[str] = set()
    deadline = time.monotonic() + 30
    while said != expected | set(pods):
        assert time.monotonic() < deadline, said
        said.add(get(url(bazaar)).split()[0])
    (site,) = [site for site in bazaar.status()["sites"] if site["name"] == "paris"]
    assert site["healthy"] and site["cluster"] == f"{bazaar.name}-paris"
    assert {row["engine"] for row in web["replicas"]} == {"gvisor"}


def test_nothing_changes_where_nothing_did(bazaar):
    assert json.loads(bazaar.run("plan", str(bazaar.file), "-o", "json").stdout)["changes"] == []
    assert not bazaar.up()["changed"]


def test_logs_and_commands_reach_pods(bazaar):
    (row,) = bazaar.service("store")["replicas"]
    assert re.fullmatch(r"store/paris/store-[a-z0-9-]+", row["id"])
    assert "seen 2retnuh" in bazaar.run("logs", "store").stdout
    (line,) = bazaar.run("logs", row["id"], "-n", "1", "-o", "json").stdout.splitlines()
    assert json.loads(line)["name"] == row["id"]
    inside = bazaar.run("exec", "store/paris", "--", "sh", "-c", "id -un; exit 7", check=False)
    assert (inside.stdout, inside.returncode) == ("nobody\n", 7)


def test_its_edge_lets_the_world_in_and_serves_its_name(bazaar):
    edge, port = bazaar.service("web")["published"][-1].split(":")
    assert int(port) == PORT and not edge.startswith("127.")
    pods = {row["container"] for row in bazaar.service("web")["replicas"] if row["node"]}
    assert get(f"http://{edge}:{port}/").split()[0] in pods
    known, unknown = (asked(edge, f"{name}.clusters.example") for name in ("web", "other"))
    assert known[3] & 15 == 0 and socket.inet_aton(edge) in known
    assert unknown[3] & 15 == NO_SUCH_NAME
    service = on_cluster(bazaar, "-n", bazaar.name, "get", "service", "web", "-o", "json")
    assert json.loads(service)["status"]["loadBalancer"]["ingress"][0]["ip"] == edge


def test_a_program_traces_a_pod_where_it_is(bazaar):
    program = "tracepoint:syscalls:sys_enter_sendto { @[container] = count(); }"
    words = ("trace", "--site", "paris", "--pod", "store", "--bazaar", bazaar.name, "-d", "4")
    tracing = bazaar.start(*words, "-e", program)
    while tracing.poll() is None:
        get(url(bazaar, "store"))
        time.sleep(0.1)
    (row,) = bazaar.service("store")["replicas"]
    said, complaints = tracing.communicate()
    assert tracing.returncode == 0, complaints
    assert re.search(rf"^@\[{bazaar.name}/{row['container']}\]: [0-9]+$", said, re.MULTILINE)
    missed = bazaar.run(*words[:4], "nobody", *words[5:], "-e", program, check=False)
    assert missed.returncode == 2 and row["container"] in missed.stderr


def test_its_secret_is_in_its_secret_alone(bazaar):
    objects = on_cluster(bazaar, "-n", bazaar.name, "get", "all,cm,netpol,pvc", "-o", "json")
    assert "hunter2" not in objects and "aHVudGVyMg==" not in objects
    assert json.loads(objects)["items"]


def test_what_others_did_behind_its_back_is_seen_and_set_right(bazaar):
    on_cluster(bazaar, "-n", bazaar.name, "delete", "networkpolicy", "web")
    on_cluster(bazaar, "-n", bazaar.name, "scale", "deployment", "store", "--replicas=0")
    plan = json.loads(bazaar.run("plan", str(bazaar.file), "-o", "json").stdout)
    assert [(one["action"], one["name"], one["why"]) for one in plan["changes"]] == [
        ("update", "web/paris", "NetworkPolicy not there"),
        ("update", "store/paris", "Deployment changed by others"),
    ]
    assert bazaar.up()["changed"]
    assert "web" in on_cluster(bazaar, "-n", bazaar.name, "get", "networkpolicy", "-o", "name")
    assert bazaar.service("store")["healthy"] == 1


def test_a_change_reaches_both_without_a_failed_request(bazaar):
    bazaar.write(text(SERVER="server.py", **{'VERSION: "1"': 'VERSION: "2"'}))
    with Polling(url(bazaar)) as client:
        bazaar.up()
        time.sleep(1)
    assert client.failures == []
    assert {answer.split()[1] for answer in client.answers[-20:]} == {"2"}


def test_a_bad_change_is_told_and_what_was_serves_on(bazaar):
    bazaar.write(text(SERVER="server.py", **{"/server.py]": "/absent.py]"}))
    with Polling(url(bazaar)) as client:
        failed = bazaar.run("up", str(bazaar.file), check=False)
    assert failed.returncode == 1
    assert "web/paris: web-" in failed.stderr and "can't open file" in failed.stderr
    assert "the change is taken back, and what ran before runs again" in failed.stderr
    assert client.failures == []
    assert [bazaar.service("web")[key] for key in ("healthy", "wanted")] == [4, 4]
    bazaar.write(text(SERVER="server.py", **{'VERSION: "1"': 'VERSION: "3"'}))
    bazaar.up()


@pytest.mark.parametrize("site", ["paris", "here"])
def test_the_loss_of_a_site_loses_what_is_in_flight(bazaar, site):
    done = bazaar.run("drill", "site", "--site", site, "-o", "json", check=False)
    figures = {one["name"]: one["value"] for one in json.loads(done.stdout)["figures"]}
    assert figures["site.failover"] is not None and figures["site.return"] is not None
    assert figures["site.lost"] <= 4 and figures["site.lost_at_return"] == 0


def test_the_supervisor_killed_finds_its_pods_again(bazaar):
    done = bazaar.run("drill", "crash", "-o", "json", check=False)
    figures = {one["name"]: one["value"] for one in json.loads(done.stdout)["figures"]}
    assert figures["crash.lost"] == 0
    bazaar.wait(lambda status: all(s["healthy"] == s["wanted"] for s in status["services"]))


def test_a_service_leaves_a_cluster(bazaar):
    bazaar.write(text(SERVER="server.py", **{"    replicas: 2\n": "    sites: [here]\n"}))
    with Polling(url(bazaar)) as client:
        bazaar.up()
    assert client.failures == []
    names = on_cluster(bazaar, "-n", bazaar.name, "get", "deploy,svc,netpol", "-o", "name")
    assert "store" in names and "web" not in names


def test_it_goes_down_and_its_volume_stays(bazaar):
    kept = get(f"{url(bazaar, 'store')}kept")
    done = bazaar.run("down", bazaar.name)
    cluster = f"{bazaar.name}-paris"
    assert f"Volumes kept: {cluster}/data" in done.stderr
    assert f"Clusters stay: {cluster}" in done.stderr
    assert "data" in on_cluster(bazaar, "-n", bazaar.name, "get", "pvc", "-o", "name")
    bazaar.up()
    assert get(f"{url(bazaar, 'store')}kept") == f"{kept}x"
    refused = bazaar.run("down", bazaar.name, "--volumes", check=False)
    assert refused.returncode == 2 and cluster in refused.stderr
    bazaar.run("down", bazaar.name, "--volumes", "--yes")
    spaces = on_cluster(bazaar, "get", "namespaces", "-o", "name")
    assert f"namespace/{bazaar.name}\n" not in spaces
