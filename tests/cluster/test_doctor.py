"""What a doctor makes of what machines tell, true or not."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.cluster import doctor
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


def test_certificates_that_end_are_told(monkeypatch: pytest.MonkeyPatch):
    of = cluster()
    pem = keys(of)["authorities"]["ca"]["certificate"]
    pair = keys(of)["pairs"]["cp1/apiserver"]
    held = pair["certificate"]
    lines = "".join(
        f"certificate /etc/kubernetes/pki/{name} {base64.b64encode(text.encode()).decode()}\n"
        for name, text in (("ca.crt", pem), ("apiserver.crt", held), ("odd.crt", "none"))
    )
    answer = answered(lines + ANSWER)

    def said_at(moment: float) -> dict[str, str]:
        monkeypatch.setattr(doctor.time, "time", lambda: moment)
        found = doctor.findings(of, of.nodes[0], answer)
        return {one.what: one.remedy for one in found if "/pki/" in one.what}

    assert list(said_at(time.time())) == ["/etc/kubernetes/pki/odd.crt holds no certificate"]
    path = "the certificate in /etc/kubernetes/pki/apiserver.crt"
    soon, late = said_at(pair["until"] - 5 * 86400), said_at(pair["until"] + 86400)
    assert soon[f"{path} ends in 5 days"] == "`bazaar cluster apply`"
    assert late[f"{path} ended 1 days ago"] == "`bazaar cluster apply`"
    (ended,) = (remedy for what, remedy in said_at(pair["until"] * 2).items() if "ca.crt" in what)
    assert ended == "`bazaar cluster certs rotate --ca`"


@pytest.mark.parametrize(
    ("hardening", "left"), [("none", {"1.2.1", "1.2.9", "4.2.13"}), ("cis", set())]
)
def test_what_is_applied_is_what_the_benchmark_asks_for(hardening: str, left: set[str]):
    of = cluster(3, 1, hardening=hardening)
    warned: set[str] = set()
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
        warned |= {one.number for one in found}
    assert warned == left


@pytest.mark.parametrize(
    ("path", "mode", "owner", "numbers"),
    [
        ("/etc/kubernetes/pki/kubelet.key", "640", "root:root", ["1.1.21"]),
        ("/etc/kubernetes/pki/etcd", "755", "root:root", []),
        ("/etc/kubernetes/kubelet.conf", "600", "nobody:root", ["4.1.6"]),
        ("/etc/kubernetes/super-admin.conf", "644", "root:root", ["1.1.13"]),
        ("/etc/kubernetes/coredns.conf", "644", "root:root", [""]),
        ("/var/lib/etcd", "755", "nobody:root", ["1.1.11", "1.1.12"]),
        ("/etc/audit.yaml", "666", "root:root", [""]),
    ],
)
def test_files_are_their_owner_s(path: str, mode: str, owner: str, numbers: list[str]):
    of = cluster()
    answer = answered(f"mode {mode} {owner} {path}\nend=doctor\n")
    found = [one for one in doctor.findings(of, of.nodes[0], answer) if path in one.what]
    assert [one.number for one in found] == numbers


def test_an_answer_cut_short_is_refused():
    with pytest.raises(RemoteError, match="cut short"):
        doctor.parse("os=debian\nend=facts\nmode 6", "m1", 0.0)


WORDS = st.sampled_from(
    [
        *("mode", "flag", "space", "dns", "etcd", "alarm", "failed", "certificate"),
        *("kubelet|a: 2026-13-45", "x", "9", "1%", "ff", "x" * 30, "0" * 30),
    ]
)


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=12))
def test_any_lines_are_an_answer(lines: list[str]):
    of = cluster()
    answer = answered("\n".join([*lines, "end=doctor"]))
    list(doctor.findings(of, of.nodes[0], answer))
    list(doctor.of_all(of, {"cp1": answer}))


@pytest.mark.parametrize("line", ["kubelet|" + "[" * 1000, "etcd " + "[" * 5000])
def test_nested_too_deep_is_no_answer(line: str):
    of = cluster()
    answer = answered(f"{line}\nend=doctor\n")
    list(doctor.findings(of, of.nodes[0], answer))
    list(doctor.of_all(of, {"cp1": answer}))
