"""The script's answer: from a real shell, and from a machine that lies."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.cluster import checks
from bazaar.cluster import facts as ask
from bazaar.errors import RemoteError, SpecError
from bazaar.model.record import replace
from tests.cluster.conftest import cluster, fresh


def test_this_machine_tells_its_facts():
    done = subprocess.run(
        ["sh", "-s"],
        input=f"{{\n{ask.script(api=True)}\n}}",
        text=True,
        capture_output=True,
        check=True,
    )
    facts = ask.parse(done.stdout, "here")
    assert facts.value("architecture") in ("x86_64", "aarch64")
    assert facts.number("processors") > 0 and facts.number("memory_kib") > 0
    assert "127.0.0.1/8" in facts.addresses
    assert "mount" in facts.programs and facts.value("user").isdigit()


def test_an_answer_cut_short_is_refused():
    with pytest.raises(RemoteError, match="m1: its facts came cut short"):
        ask.parse("os=debian\nport 0.0.0.0:2", "m1")


@given(st.text(max_size=400))
def test_any_answer_is_facts_or_refused(text: str):
    try:
        facts = ask.parse(f"{text}\nend=facts", "m1")
    except RemoteError:
        return
    assert all(isinstance(port, int) for port in facts.ports)
    facts.number("disk_kib")


WORDS = st.sampled_from(
    ["file", "unit", "set", "port", "node", "member", "addons", "mode", "a=b", "-", "80", "x:1"]
)


@given(st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=12))
def test_any_lines_are_facts(lines: list[str]):
    ask.parse("\n".join([*lines, "end=facts"]), "m1")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("user=1000", "needs root"),
        ("init=other", "systemd"),
        ("architecture=riscv64", "architecture 'riscv64'"),
        ("disk_kib=1000", "0.0 GiB free"),
        ("memory_kib=500000", "488 MiB of memory"),
        ("identity=rome 1234", "belongs to the cluster rome"),
        ("kubernetes=/etc/rancher /var/lib/rancher", "another Kubernetes (/etc/rancher)"),
        ("port 127.0.0.1:6443 nginx", "port 6443, for kube-apiserver, is taken by nginx"),
    ],
)
def test_what_forbids_a_cluster(line: str, said: str):
    of = cluster()
    with pytest.raises(SpecError) as caught:
        checks.refuse(of.nodes, of, {"cp1": fresh(of.nodes[0], f"{line}\n")}, {})
    assert said in str(caught.value) and "cp1 (10.1.0.11)" in str(caught.value)


def test_clocks_that_differ_forbid_it_and_all_is_said_at_once():
    of = cluster(1, 1)
    facts = {node.name: fresh(node) for node in of.nodes}
    checks.refuse(of.nodes, of, facts, {"cp1": 2.0, "w1": -3.0})
    facts["cp1"] = replace(facts["cp1"], values={**facts["cp1"].values, "init": "other"})
    with pytest.raises(SpecError) as caught:
        checks.refuse(of.nodes, of, facts, {"w1": -300.0})
    assert len(caught.value.problems) == 2
    assert "its clock is 300 s behind" in str(caught.value)
