"""One file with all of it: signed, checked, and a machine installed from it with no way out."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.cluster import bundle, extras, vault
from bazaar.cluster.parts import Programs
from bazaar.errors import ChecksumError, StateError, UsageError
from bazaar.host import files, machines, packages
from bazaar.up import cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, Kubectl, healthy, on
from tests.host.conftest import need_machines


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key to sign by, and a cache of this test's own."""
    monkeypatch.setenv(bundle.KEY_FILE, str(tmp_path / "sign.key"))
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def small(folder: Path) -> tuple[Programs, Programs]:
    for name in ("one", "two"):
        (folder / name / "bin").mkdir(parents=True)
        (folder / name / "bin" / "program").write_text(f"#!/bin/sh\necho {name}\n")
        (folder / name / "bin" / "program").chmod(0o555)
        files.write_json(folder / name / "manifest.json", {"program": name})
    first, second = (extras.of(folder / name) for name in ("one", "two"))
    return Programs("1.36.3", str(folder / "one"), first), Programs(
        "", str(folder / "two"), second, ("runsc",)
    )


def made(folder: Path) -> Path:
    target = folder / "small.tar"
    assert bundle.make(target, *small(folder), None, "") == target.stat().st_size
    return target


def test_what_is_taken_is_what_was_put_in(keys: Path):
    first, second = small(keys)
    target = keys / "small.tar"
    bundle.make(target, first, second, None, "")
    assert (keys / "sign.key").stat().st_mode & 0o777 == 0o600
    assert bundle.taken("1.36.3") is None
    assert bundle.take(target, None) == "1.36.3"
    brought = bundle.taken("1.36.3")
    assert brought is not None
    assert [one.manifest for one in brought] == [first.manifest, second.manifest]
    assert brought[1].has == ("runsc",) and brought[0].packages == ""
    program = Path(brought[0].folder) / "bin" / "program"
    assert program.read_text().endswith("echo one\n") and program.stat().st_mode & 0o777 == 0o555
    assert bundle.take(target, None) == "1.36.3"  # again


def test_another_s_signature_is_not_believed(keys: Path, monkeypatch: pytest.MonkeyPatch):
    target = made(keys)
    monkeypatch.setenv(bundle.KEY_FILE, str(keys / "other.key"))
    with pytest.raises(UsageError, match="other.key.pub: No such file"):
        bundle.take(target, None)
    shutil.rmtree(keys / "one")
    shutil.rmtree(keys / "two")
    bundle.make(keys / "other.tar", *small(keys), None, "")
    with pytest.raises(ChecksumError, match="is not signed by the key in"):
        bundle.take(target, None)
    assert bundle.take(target, keys / "sign.key.pub") == "1.36.3"


def test_what_was_changed_on_the_way_is_not_taken(keys: Path):
    target = made(keys)
    whole = target.read_bytes()
    for change, said in (
        (whole.replace(b"echo two", b"echo bad"), "is not what the list says: nothing was taken"),
        (whole.replace(b'"version": "1.36.3"', b'"version": "1.36.4"'), "is not signed"),
    ):
        assert change != whole
        target.write_bytes(change)
        with pytest.raises(ChecksumError, match=said):
            bundle.take(target, None)
    target.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ChecksumError, UsageError)):
        bundle.take(target, None)
    target.write_bytes(b"no tar")
    with pytest.raises(UsageError, match="is no bundle"):
        bundle.take(target, None)
    assert bundle.taken("1.36.3") is None
    assert [path.name for path in (keys / "cache" / "cluster").iterdir()] == []


def test_what_is_no_fault_of_the_bundle_is_told_as_what_it_is(keys: Path):
    target = made(keys)
    (keys / "cache").mkdir()
    (keys / "cache" / "cluster").write_text("in the way")
    with pytest.raises(StateError, match=r"small.tar cannot be taken: .*/cache/cluster: File exi"):
        bundle.take(target, None)
    with pytest.raises(UsageError, match="nowhere.tar: there is no such file"):
        bundle.take(keys / "nowhere.tar", None)


def test_a_list_without_the_programs_is_refused(keys: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bundle.Path, "rglob", lambda *_: iter(()))
    with pytest.raises(UsageError, match="its list is unreadable: .*manifest.json"):
        bundle.take(made(keys), None)


def test_what_is_not_in_the_list_is_not_taken(keys: Path):
    target = made(keys)
    with tarfile.open(target, "a") as archive:
        entry = tarfile.TarInfo("../escaped")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"bad"))
    bundle.take(target, None)
    assert not list(keys.rglob("escaped"))


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[machines.LocalMachine]:
    """A machine that has nothing, and reaches nobody but its neighbours."""
    need_machines()
    monkeypatch.setenv("BAZAAR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(vault.KEY_FILE, str(tmp_path / "vault.key"))
    try:
        (machine,) = machines.create(1, QUIET)
        network = machine.machine.address.rpartition(".")[0]
        on(
            "m1",
            "nft -f - <<'END'\n"
            "table inet cut { chain output { type filter hook output priority 0;\n"
            f"  ct state established,related accept; ip daddr {network}.1 drop\n"
            f"  ip daddr {{ {network}.0/24, 127.0.0.0/8, 10.96.0.0/16, 10.244.0.0/16 }} accept\n"
            "  meta nfproto ipv4 drop\n}\n}\nEND",
        )
        yield machine
    finally:
        machines.destroy(None, QUIET)


@pytest.mark.xdist_group("cluster-bundle")
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_machine_without_a_way_out_is_installed_from_it(
    cut_off: machines.LocalMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not packages.installable():
        pytest.skip("there is no apt here to get packages by")
    monkeypatch.setenv(bundle.KEY_FILE, str(tmp_path / "sign.key"))
    target = tmp_path / "all.tar"
    assert cluster_life.bundle(target, None, QUIET) > 300 << 20
    assert on("m1", "apt-get update 2>&1 | grep -c Err || true", check=False).strip() != "0"
    # Nothing is in this cache but what the bundle brings.
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    version = bundle.take(target, None)
    machine = cut_off.machine
    asked = Request(
        name="far",
        machines=[f"m1={machine.address}"],
        key=machine.key,
        known_hosts=machine.known_hosts,
        version=version,
    )
    clusters.apply(asked, QUIET)
    assert healthy("far") and clusters.plan(asked, QUIET)[1] == []
    assert Kubectl("far", tmp_path).json("get", "nodes")["items"][0]["metadata"]["name"] == "m1"
    assert "containerd" in on("m1", "dpkg -l containerd | tail -1")
    assert cluster_request.known("far").version == version
