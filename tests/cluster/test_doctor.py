"""What a doctor makes of what machines tell, true or not."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.cluster import doctor, pki
from bazaar.cluster.desired import desired
from bazaar.errors import RemoteError
from tests.cluster.conftest import FRESH, cluster, context, keys

ANSWER = """\
mode 600 root:root /etc/kubernetes/pki/sa.key
mode 700 root:root /var/lib/etcd
flag kube-apiserver --profiling=true
flag etcd --client-cert-auth
kubelet|readOnlyPort: 0
space 5000000 40% /
space 1000 99% /var/log
failed cron.service
dns machine 0050622a85800001000100000000
dns pod 0050622a85830001000000000000
etcd [{"endpoint":"https://10.1.0.11:2379","health":false,"error":"no leader"}]
alarm memberID:1 alarm:NOSPACE
end=doctor
"""


def answered(text: str = ANSWER, more: str = "", late: float = 0.0) -> doctor.Answer:
    now = time.time()
    facts = FRESH.format(name="cp1", address="10.1.0.11", clock=now - late)
    facts = facts.replace("identity=", "identity=paris 1")
    return doctor.parse(f"{facts}{more}end=facts\n{text}", "cp1", now)


def test_each_finding_has_its_remedy():
    of = cluster()
    answer = answered(more="unit etcd.service failed x\nswap_kib=1000\n", late=120)
    found = [*doctor.findings(of, of.nodes[0], answer), *doctor.of_all(of, {"cp1": answer})]
    said = "\n".join(f"{one.severity} {one.node} {one.what}" for one in found)
    for words in (
        "fail cp1 its clock is 120 s behind",
        "fail cp1 0 MiB are free below /var/log, 99 % are used",
        "warning cp1 has swap",
        "fail cp1 etcd.service is failed",
        "fail cp1 cron.service has failed",
        "fail cp1 a pod finds no names by the Service kube-dns: code 3",
        "fail cp1 kube-apiserver: profiling is on (--profiling)",
        "fail  no control plane answers for the API",
        "fail  etcd: https://10.1.0.11:2379 is unhealthy: no leader",
        "fail  etcd: memberID:1 alarm:NOSPACE",
    ):
        assert words in said, said
    assert "a machine finds no names" not in said and "sa.key" not in said
    assert all(one.remedy for one in found)


def test_certificates_that_end_are_told():
    of = cluster()
    pem = keys(of)["authorities"]["ca"]["certificate"]
    held = pki.renewed({}, of, time.time())["pairs"]["cp1/apiserver"]["certificate"]
    lines = "".join(
        f"certificate /etc/kubernetes/pki/{name} {base64.b64encode(text.encode()).decode()}\n"
        for name, text in (("ca.crt", pem), ("apiserver.crt", held), ("odd.crt", "none"))
    )
    answer = answered(lines + ANSWER)
    said = [one.what for one in doctor.findings(of, of.nodes[0], answer)]
    assert "/etc/kubernetes/pki/odd.crt holds no certificate" in said
    assert not any("apiserver.crt ends" in what for what in said)


def test_what_is_applied_is_what_the_benchmark_asks_for():
    of = cluster(3, 1)
    for node in of.nodes:
        files = desired(context(of, node)).files
        lines: list[str] = []
        for path, file in files.items():
            lines.append(f"mode {file.mode:o} root:root {path}\n")
            words = file.content.decode(errors="replace").split()
            program = path.rpartition("/")[2].removesuffix(".service")
            if path.endswith(".service"):
                lines += [f"flag {program} {word}\n" for word in words if word.startswith("--")]
            if path == "/var/lib/kubelet/config.yaml":
                lines += [f"kubelet|{line}\n" for line in file.content.decode().splitlines()]
        answer = answered("".join(lines) + "end=doctor\n")
        found = list(doctor.findings(of, node, answer))
        assert [one for one in found if one.severity == "fail"] == []


def test_an_answer_cut_short_is_refused():
    with pytest.raises(RemoteError, match="cut short"):
        doctor.parse("os=debian\nend=facts\nmode 6", "m1", 0.0)


WORDS = st.sampled_from(
    ["mode", "flag", "space", "dns", "etcd", "alarm", "failed", "certificate", "x", "9", "1%", "ff"]
)


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=12))
def test_any_lines_are_an_answer(lines: list[str]):
    of = cluster()
    answer = answered("\n".join([*lines, "end=doctor"]))
    list(doctor.findings(of, of.nodes[0], answer))
    list(doctor.of_all(of, {"cp1": answer}))
