"""One real machine becomes a cluster: certificates, DNS, Services, a pod with its own kernel."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.errors import SpecError, UsageError
from bazaar.run import images
from bazaar.run.images import export
from bazaar.up import cluster_images, cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import (
    IMAGE,
    QUIET,
    Kubectl,
    bring,
    healthy,
    on,
    own_state,
    pod,
    service,
    ssh,
)

pytestmark = [pytest.mark.xdist_group("cluster-one"), pytest.mark.timeout(3600)]
NAME = "one"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    with own_state(tmp_path_factory, "cluster") as folder:
        clusters.apply(Request(name=NAME, local=1), QUIET)
        bring(NAME)
        yield Kubectl(NAME, folder)


def test_it_is_ready_and_its_plan_is_empty(kubectl: Kubectl):
    assert healthy(NAME)
    cluster, changes = clusters.plan(Request(name=NAME), QUIET)
    assert cluster is not None and changes == []
    (node,) = kubectl.json("get", "nodes")["items"]
    # The taint of one that is not ready goes a moment after it is.
    taints = [one["key"] for one in node["spec"].get("taints", [])]
    assert "node-role.kubernetes.io/control-plane" not in taints
    assert node["spec"]["podCIDR"] == "10.244.0.0/24"
    assert node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == ""


def test_pods_find_one_another_by_name(kubectl: Kubectl):
    kubectl.apply(pod("web"), service("web", "web"), pod("asker"))
    kubectl.wait_for("pod/web", "condition=Ready")
    kubectl.wait_for("pod/asker", "condition=Ready")
    asker = kubectl.json("get", "pod", "asker")["status"]["podIP"]
    kubectl.reach("asker", "web:80")
    for name in ("web", "web.default.svc.cluster.local"):
        asked = f"request=hostname&protocol=http&tries=1&port=80&host={name}"
        said = on("m1", f"curl -fsS --max-time 10 'http://{asker}:8080/dial?{asked}'")
        assert json.loads(said) == {"responses": ["web"]}
    assert "Started HTTP server" in kubectl("logs", "web")


def test_a_pod_has_a_kernel_of_its_own(kubectl: Kubectl):
    kubectl.apply(pod("own", runtime="gvisor"), pod("shared"))
    kubectl.wait_for("pod/own", "condition=Ready")
    kubectl.wait_for("pod/shared", "condition=Ready")
    address = kubectl.json("get", "pod", "own")["status"]["podIP"]
    assert on("m1", f"curl -fsS http://{address}:8080/hostname").strip() == "own"
    assert "runsc" in on("m1", "ps -e -o args")
    name = kubectl.json("get", "pod", "own")["spec"]["runtimeClassName"]
    assert name == "gvisor"


def test_a_container_with_a_kernel_of_its_own_ends_is_started_again_and_goes(kubectl: Kubectl):
    main = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never"}
    tried = [{**main, "args": ["nonesuch-command"]}]  # agnhost ends with 1 and says why
    kubectl.apply(pod("again", containers=tried, runtime="gvisor"))
    kubectl.wait_for("pod/again", "jsonpath={.status.containerStatuses[0].restartCount}=1")
    assert "nonesuch-command" in kubectl("logs", "again", "--previous")
    state = kubectl.json("get", "pod", "again")["status"]["containerStatuses"][0]["lastState"]
    assert state["terminated"]["exitCode"] == 1
    kubectl("delete", "pod", "again", "--timeout=30s")
    identity = state["terminated"]["containerID"].removeprefix("containerd://")
    assert identity not in on("m1", "ls /run/containerd/io.containerd.runtime.v2.task/k8s.io")


def test_an_image_of_this_machine_is_carried_there(kubectl: Kubectl):
    hello, more = "deb://bookworm?packages=hello", "deb://bookworm?packages=python3"
    (loaded,) = cluster_images.load(NAME, [hello], QUIET)
    assert loaded.sent["m1"] > 1 << 20
    main = {"name": "main", "image": loaded.name, "imagePullPolicy": "Never"}
    containers = [{**main, "command": ["hello", "-t"]}]
    kubectl.apply(pod("hello", containers=containers, restartPolicy="Never", runtime="gvisor"))
    kubectl.wait_for("pod/hello", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("logs", "hello") == "hello, world\n"
    # What it has is not sent again, nor are layers that another image has, too.
    again, other = cluster_images.load(NAME, [hello, more], QUIET)
    assert (again.name, again.sent) == (loaded.name, {"m1": 0})
    whole = sum(one.size for one in export.export(images.ensure(more, QUIET), QUIET).blobs)
    assert 0 < other.sent["m1"] < whole / 2
    assert on("m1", "ls /var/lib/bazaar/images") == ""


def test_secrets_are_encrypted_where_etcd_keeps_them(kubectl: Kubectl):
    kubectl("create", "secret", "generic", "fish", "--from-literal=word=swordfish")
    kubectl("create", "configmap", "plain", "--from-literal=word=plainfish")
    data = "cat /var/lib/etcd/member/wal/*.wal /var/lib/etcd/member/snap/db"
    assert on("m1", f"{data} | grep -ac swordfish || true").strip() == "0"
    assert on("m1", f"{data} | grep -ac plainfish").strip() != "0"


def test_a_file_changed_there_is_seen_and_mended(kubectl: Kubectl):
    on(
        "m1",
        "echo '# changed' >>/var/lib/kubelet/config.yaml; chmod 644 /etc/kubernetes/pki/sa.key",
    )
    _, changes = clusters.plan(Request(name=NAME), QUIET)
    # What was started since may run with it.
    assert [(change.kind, change.name) for change in changes] == [("files", "m1"), ("unit", "m1")]
    assert changes[1].detail == "kubelet" and "config.yaml changed there" in changes[1].why
    assert "config.yaml" in changes[0].detail and "sa.key" in changes[0].detail
    clusters.apply(Request(name=NAME), QUIET)
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []
    assert on("m1", "stat -c %a /etc/kubernetes/pki/sa.key").strip() == "600"


def test_a_unit_that_was_stopped_is_started(kubectl: Kubectl):
    on("m1", "systemctl stop kube-scheduler")
    status = cluster_life.status(NAME, QUIET)
    assert status.nodes[0].failing == ("kube-scheduler",) and not status.healthy
    _, changes = clusters.plan(Request(name=NAME), QUIET)
    assert [(change.kind, change.detail) for change in changes] == [("unit", "kube-scheduler")]
    clusters.apply(Request(name=NAME), QUIET)
    assert healthy(NAME)


def test_a_doctor_finds_nothing_that_fails(kubectl: Kubectl):
    _, answered, found = cluster_life.doctor(NAME, QUIET)
    assert answered == 1
    assert [one for one in found if one.severity == "fail"] == []
    assert all(one.remedy for one in found)


def test_a_doctor_finds_what_was_broken(kubectl: Kubectl):
    on(
        "m1",
        "chmod 644 /etc/kubernetes/pki/sa.key; chown nobody /etc/kubernetes/audit.yaml;"
        "sed -i 's/^readOnlyPort: 0/readOnlyPort: 10255/' /var/lib/kubelet/config.yaml;"
        "sed -i 's/--profiling=false/--profiling=true/' /etc/systemd/system/kube-scheduler.service;"
        "systemctl daemon-reload; systemctl restart kube-scheduler; systemctl stop coredns",
    )
    _, _, found = cluster_life.doctor(NAME, QUIET)
    failing = {(one.number, one.what): one.remedy for one in found if one.severity == "fail"}
    said = "\n".join(what for _, what in failing)
    for words in (
        "/etc/kubernetes/pki/sa.key has mode 644",
        "/etc/kubernetes/audit.yaml belongs to nobody:root",
        "kubelet: its read-only port is open",
        "kube-scheduler: profiling is on (--profiling)",
        "coredns.service is inactive",
        "a machine finds no names by the Service kube-dns",
    ):
        assert words in said, said
    clusters.apply(Request(name=NAME), QUIET)
    on("m1", "chown root /etc/kubernetes/audit.yaml")
    assert [one for one in cluster_life.doctor(NAME, QUIET)[2] if one.severity == "fail"] == []


# Looks at all command lines over and over, its own apart, until it is told to end.
WATCH = r"""
while [ ! -e /run/watched-enough ]; do
  for path in /proc/[0-9]*/cmdline; do
    [ "$path" = /proc/$$/cmdline ] || tr '\0' ' ' <"$path"; echo
  done
done 2>/dev/null | sort -u
"""


def test_certificates_are_issued_anew_and_no_command_line_shows_a_key(kubectl: Kubectl):
    before = {(one.node, one.name): one.until for one in cluster_life.certificates(NAME)}
    serial = "openssl x509 -noout -serial -in /etc/kubernetes/pki/apiserver.crt"
    first = on("m1", serial)
    watcher = subprocess.Popen(
        ssh("m1", "bash -s"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdin is not None
    watcher.stdin.write(WATCH)
    watcher.stdin.close()
    watcher.stdin = None
    cluster_life.rotate(NAME, QUIET)
    on("m1", "touch /run/watched-enough")
    seen, _ = watcher.communicate(timeout=30)
    assert "sh -s" in seen and "systemctl restart" in seen  # it saw the scripts at work
    key = on("m1", "cat /etc/kubernetes/pki/apiserver.key").splitlines()[1]
    for secret in ("PRIVATE KEY", key[:32], base64.b64encode(b"-----BEGIN PRIV").decode()):
        assert secret not in seen
    assert on("m1", serial) != first and healthy(NAME)
    assert {(one.node, one.name) for one in cluster_life.certificates(NAME)} == set(before)
    kubectl("get", "nodes")  # by the old one still: the authority is the same


def test_a_kubelet_has_its_own_certificate_signed_anew(kubectl: Kubectl):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, "system:node:m1"),
        ]
    )
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM)
    document = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "again"},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    }
    text = json.dumps(document)
    on("m1", f"echo '{text}' | kubectl --kubeconfig /etc/kubernetes/kubelet.conf create -f -")
    kubectl.wait_for("csr/again", "condition=Approved")
    kubectl.wait_for("csr/again", "jsonpath={.status.certificate}")


def test_new_authorities_come_without_an_interruption(kubectl: Kubectl, tmp_path: Path):
    kubectl("create", "configmap", "before")
    over = threading.Event()
    longest = [0.0]

    def ask() -> None:
        """The API, by the kubeconfig of the moment, again and again."""
        answered = time.monotonic()
        while not over.is_set():
            asker = Kubectl(NAME, tmp_path)
            if "before" in asker("get", "configmap", "before", check=False):
                answered = time.monotonic()
            longest[0] = max(longest[0], time.monotonic() - answered)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        cluster_life.rotate_authorities(NAME, QUIET)
    finally:
        over.set()
        asking.join()
    # The only API server is started again; where there are three, another one answers.
    assert longest[0] < 15
    done = subprocess.run(
        [kubectl.program, "--kubeconfig", str(kubectl.config), "get", "nodes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "certificate" in done.stderr
    assert healthy(NAME) and clusters.plan(Request(name=NAME), QUIET)[1] == []
    kubectl.config.write_text(clusters.kubeconfig(NAME))
    (node,) = kubectl.json("get", "nodes")["items"]
    assert node["metadata"]["name"] == "m1"
    assert [one for one in cluster_life.doctor(NAME, QUIET)[2] if one.severity == "fail"] == []


def test_a_backup_brings_back_what_it_holds(kubectl: Kubectl, tmp_path: Path):
    kubectl("create", "configmap", "kept", "--from-literal=a=b")
    target = tmp_path / "one.backup"
    assert cluster_life.backup(NAME, target, QUIET) > 50_000
    assert target.stat().st_mode & 0o777 == 0o600
    kubectl("delete", "configmap", "kept")
    kubectl("create", "configmap", "late")
    cluster_life.restore(target, Request(name=NAME), QUIET)
    names = [one["metadata"]["name"] for one in kubectl.json("get", "configmaps")["items"]]
    assert "kept" in names and "late" not in names
    assert clusters.plan(Request(name=NAME), QUIET)[1] == []


def test_another_version_is_an_upgrade_s(kubectl: Kubectl):
    with pytest.raises(UsageError, match="another version is not applied at once"):
        clusters.apply(Request(name=NAME, version="1.37.0"), QUIET)
    with pytest.raises(UsageError, match="does not go back"):
        cluster_life.upgrade(NAME, "1.35.0", QUIET)
    with pytest.raises(UsageError, match="more than one minor version"):
        cluster_life.upgrade(NAME, "1.38.0", QUIET)


def test_a_machine_of_another_cluster_is_refused(kubectl: Kubectl):
    node = cluster_request.known(NAME).nodes[0]
    request = Request(
        name="two",
        machines=[f"x={node.machine.address}"],
        key=node.machine.key,
        known_hosts=node.machine.known_hosts,
    )
    with pytest.raises(SpecError, match="belongs to the cluster one"):
        clusters.apply(request, QUIET)


def test_what_is_taken_away_leaves_nothing_of_ours(kubectl: Kubectl):
    import asyncio

    from bazaar.cluster import removal

    asyncio.run(removal.reset(cluster_request.known(NAME), QUIET))
    left = on(
        "m1",
        "ls -d /etc/kubernetes /var/lib/{etcd,kubelet,bazaar-node} /etc/cni/net.d/* "
        "/etc/systemd/system/kube* /etc/systemd/system/etcd* 2>/dev/null; ip -br link; "
        "nft list tables; ps -e -o comm; true",
    )
    for word in ("kube", "etcd", "cni0", "bazaar", "pause", "runsc"):
        assert word not in left, left
    clusters.apply(Request(name=NAME), QUIET)
    assert healthy(NAME)
