"""What this machine needs, looked for on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bazaar.errors import MissingError
from bazaar.host import packages
from bazaar.spec import Bazaar, Probe, Service, Shield, resolve
from bazaar.up import doctor

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: kernel features are tried")


def by_name(found: list[doctor.Need]) -> dict[str, doctor.Need]:
    return {need.name: need for need in found}


def test_each_need_is_there_or_has_a_remedy():
    found = doctor.needs()
    assert len({need.name for need in found}) == len(found)
    for need in found:
        assert need.purpose and set(need.layers) <= set(doctor.LAYERS)
        assert need.present or need.remedy, need
        assert need.present or need.found or need.kind == "program", need
    assert doctor.missing(found) == [need for need in found if not need.present]


def test_only_the_needs_of_a_layer():
    assert {"haproxy", "root"} <= set(by_name(doctor.needs({"site"})))
    assert "haproxy" not in by_name(doctor.needs({"trace"}))


@root
def test_trying_leaves_nothing():
    def interfaces() -> list[str]:
        return sorted(os.listdir("/sys/class/net"))

    before = interfaces()
    doctor.needs()
    assert "bz0" not in set(interfaces()) - set(before)
    with open("/proc/self/mountinfo") as file:
        assert not [line for line in file if "/tmp/bazaar-" in line]


@root
def test_a_machine_that_forbids_is_described_not_a_failure():
    """The same look by root without the capabilities that matter."""
    code = (
        "import json; from dataclasses import asdict; from bazaar.up import doctor;"
        "print(json.dumps([asdict(need) for need in doctor.needs({'site', 'trace', 'shield'})]))"
    )
    finished = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-sys_admin,-net_admin,-bpf,-perfmon",
            sys.executable,
            "-c",
            code,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {need["name"]: need for need in json.loads(finished.stdout)}
    for name in ("network namespaces", "veth", "bridge", "BPF", "XDP native on veth"):
        assert not found[name]["present"], name
        assert found[name]["found"] and found[name]["remedy"]
    assert "not permitted" in found["network namespaces"]["found"]
    assert found["network namespaces"]["essential"] and not found["BPF"]["essential"]


def test_a_bazaar_needs_what_its_services_run_on():
    shared = resolve(Bazaar("x", services=[Service("a", stand="apache", kernel="shared")]))
    found = by_name(doctor.for_bazaar(shared))
    assert "gvisor" not in found and "skopeo" not in found
    assert found["runc"].essential and found["mmdebstrap"].essential
    assert not {"BTF", "XDP native on veth"} & set(found)

    own = resolve(
        Bazaar(
            "x",
            services=[Service("a", image="docker://registry.example/a")],
            probes=[Probe("p", "BEGIN { exit(); }")],
            shield=Shield(),
        )
    )
    found = by_name(doctor.for_bazaar(own))
    assert "runc" not in found and "mmdebstrap" not in found
    assert found["gvisor"].essential and found["skopeo"].essential
    if os.geteuid() == 0:
        assert {"BTF", "XDP native on veth"} <= set(found)


@pytest.fixture
def row(monkeypatch):
    """A program that no machine has, in place of the table."""

    def put(*, essential: bool) -> None:
        wanted = doctor.Wanted("bz-none", ("site",), "a test", essential)
        monkeypatch.setattr(doctor, "PROGRAMS", {"bz-none": ("bz-no-package", wanted)})
        monkeypatch.setattr(packages, "installable", lambda: False)

    return put


def test_what_services_cannot_do_without_stops_before_anything_is_changed(row):
    row(essential=True)
    with pytest.raises(MissingError) as caught:
        doctor.ensure(doctor.needs({"site"}), lambda _: None)
    assert "bz-none (a test): missing" in caught.value.message
    assert "bz-no-package" in (caught.value.hint or "")


def test_what_is_missing_for_one_reason_is_told_together(monkeypatch):
    wanted = {
        name: (f"{name}-package", doctor.Wanted(name, ("site",), "a test", True))
        for name in ("bz-a", "bz-b")
    }
    monkeypatch.setattr(doctor, "PROGRAMS", wanted)
    monkeypatch.setattr(packages, "installable", lambda: False)
    monkeypatch.setattr(packages, "system", lambda: packages.System("debian", (), "Debian"))
    with pytest.raises(MissingError, match=r"bz-a \(a test\), bz-b \(a test\): missing") as caught:
        doctor.ensure(doctor.needs({"site"}), lambda _: None)
    assert "apt-get install bz-a-package bz-b-package" in (caught.value.hint or "").splitlines()


def test_what_services_can_do_without_is_told(row):
    row(essential=False)
    left = doctor.ensure(
        [need for need in doctor.needs({"site"}) if need.kind == "program"], lambda _: None
    )
    assert [need.name for need in left] == ["bz-none"]


def test_what_cannot_be_installed_is_told_before_anything_is(monkeypatch):
    def install(*_: object) -> None:
        raise AssertionError("nothing may be installed")

    monkeypatch.setattr(packages, "install", install)
    kernel = doctor.Need("veth", "kernel", ("run",), "links", False, "no", "get veth", None, True)
    program = doctor.Need("ip", "program", ("run",), "x", False, "", "get ip", "iproute2", True)
    with pytest.raises(MissingError, match=r"lacks veth \(links\): no") as caught:
        doctor.ensure([program, kernel], lambda _: None)
    assert caught.value.hint == "get veth"


@root
@pytest.mark.slow
@pytest.mark.alone
def test_a_package_that_cannot_be_had_is_told_in_apts_words(row, monkeypatch):
    row(essential=True)
    monkeypatch.setattr(packages, "installable", lambda: True)
    with pytest.raises(MissingError, match="Unable to locate package bz-no-package"):
        doctor.ensure(doctor.needs({"site"}), lambda _: None)


def test_nothing_missing_is_nothing_done():
    there = [need for need in doctor.needs() if need.present]
    said: list[str] = []
    assert doctor.ensure(there, said.append) == []
    assert said == []
