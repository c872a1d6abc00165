"""The programs of a cluster: mirrors and releases, builds, and the set in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bazaar.cluster import binaries
from bazaar.cluster.binaries import parts, sets, sources
from bazaar.errors import ChecksumError, MissingError, UsageError
from bazaar.host import commands, go_build
from tests.cluster.mirror import ARCH, content, publish, serving


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own, no mirror, and releases that cannot be reached."""
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    monkeypatch.setattr(sources, "reachable", lambda: False)
    return tmp_path / "cache" / "cluster"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A mirror of everything, served by HTTP on loopback: its folder."""
    folder = tmp_path / "mirror"
    publish(folder)
    with serving(folder) as address:
        monkeypatch.setenv(sources.VARIABLE, address)
        yield folder


def silent(_: str) -> None:
    pass


def test_an_unknown_version_is_refused():
    for ask in (lambda: binaries.get("1.2.3", silent), lambda: binaries.cached("1.2.3")):
        with pytest.raises(UsageError, match=r"1\.2\.3") as caught:
            ask()
        assert "1.36.3" in str(caught.value)


# A mirror


def test_a_set_comes_from_a_mirror(cache, site, monkeypatch):
    assert binaries.cached("1.36.3") is None
    told: list[str] = []
    found = binaries.get("1.36.3", told.append)
    assert found.version == "1.36.3" and tuple(found.digests) == binaries.NAMES
    assert sorted(os.listdir(found.folder)) == sorted(binaries.NAMES)
    for name in binaries.NAMES:
        program = found.folder / name
        assert program.read_bytes() == content(name)
        assert found.digests[name] == hashlib.sha256(content(name)).hexdigest()
        assert program.stat().st_mode & 0o777 == 0o555
    assert found.folder.stat().st_mode & 0o777 == 0o555
    manifest = json.loads((found.folder.parent / "manifest.json").read_text())
    assert manifest["etcd"] == {
        "origin": os.environ[sources.VARIABLE],
        "sha256": found.digests["etcd"],
        "size": len(content("etcd")),
        "version": "3.6.16",
    }
    assert any("kubelet" in line for line in told)
    shutil.rmtree(site)
    monkeypatch.delenv(sources.VARIABLE)
    assert binaries.get("1.36.3", silent) == binaries.cached("1.36.3") == found


def test_a_mirror_may_be_a_folder(cache, site, monkeypatch):
    monkeypatch.setenv(sources.VARIABLE, str(site))
    assert binaries.get("1.36.3", silent).digests["pause"]
    monkeypatch.setenv(sources.VARIABLE, str(site / "nowhere"))
    assert binaries.get("1.36.3", silent), "what is cached needs no mirror"
    shutil.rmtree(cache)
    with pytest.raises(UsageError, match="nowhere"):
        binaries.get("1.36.3", silent)


def test_two_sets_share_what_they_have_in_common(cache, site):
    publish(site, "1.35.4")
    new, old = (binaries.get(version, silent) for version in binaries.VERSIONS)
    assert new.folder != old.folder
    assert (new.folder / "etcd").samefile(old.folder / "etcd")
    assert not (new.folder / "kubelet").samefile(old.folder / "kubelet")


@pytest.mark.parametrize(
    "path",
    [
        f"v1.36.3/bin/linux/{ARCH}/kubelet",
        parts.ETCD.releases[0].path.format(arch=ARCH),
    ],
)
def test_a_wrong_checksum_is_refused_and_nothing_is_left(cache, site, path):
    with (site / path).open("ab") as file:
        file.write(b"one more line")
    with pytest.raises(ChecksumError, match="does not have the checksum") as caught:
        binaries.get("1.36.3", silent)
    assert path in str(caught.value)
    assert binaries.cached("1.36.3") is None
    program = Path(path).name.split("-")[0]
    assert not [
        file for file in cache.rglob("*") if program in file.name and "plugins" not in str(file)
    ]
    assert not list(cache.rglob(f"{sets._UNFINISHED}*"))
    publish(site)
    assert binaries.get("1.36.3", silent)


@pytest.mark.parametrize("text", ["", "<html>", "0" * 63, "0" * 64 + "  another-file\n"])
def test_a_list_without_the_checksum_is_refused(cache, site, text):
    (site / f"v1.36.3/bin/linux/{ARCH}/kubelet.sha256").write_text(text)
    with pytest.raises(ChecksumError, match="no checksum of kubelet"):
        binaries.get("1.36.3", silent)
    assert binaries.cached("1.36.3") is None


def test_an_archive_without_the_program_is_none(cache, site, monkeypatch):
    monkeypatch.setattr(sets._Ways, "_build", refuse)
    path = site / parts.ETCD.releases[0].path.format(arch=ARCH)
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo(parts.ETCD.releases[0].members["etcd"].format(arch=ARCH))
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    listed = site / parts.ETCD.releases[0].checksums.format(arch=ARCH)
    listed.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    with pytest.raises(MissingError, match=r"etcd 3\.6\.16 cannot be had: .* holds no "):
        binaries.get("1.36.3", silent)


def refuse(self, part, folder):
    raise MissingError("no build here")


def test_a_set_that_lost_a_file_is_made_again(cache, site):
    found = binaries.get("1.36.3", silent)
    (found.folder / "kubelet").unlink()
    assert binaries.cached("1.36.3") is None
    part = next((cache / "parts").glob("etcd-*"))
    (part / "etcd").unlink()
    assert binaries.get("1.36.3", silent) == found
    assert (found.folder / "kubelet").exists() and (found.folder / "etcd").exists()


# Releases


def test_the_order_is_mirror_release_build(cache, site, monkeypatch):
    """What the mirror lacks comes from the release, what that lacks is built."""
    for path in site.rglob("kubelet*"):
        path.rename(path.with_suffix(".gone"))
    asked: list[str] = []
    original = sources.download

    def download(part, base, folder, progress):
        asked.append(f"{part.name} {base}")
        original(part, base, folder, progress)

    def build(self, part, folder):
        asked.append(f"{part.name} built")
        assert not list(folder.iterdir()), "what other ways began is gone"
        for name in part.packages:
            (folder / name).write_bytes(content(name))
        return "go1.2.3"

    monkeypatch.setattr(sources, "download", download)
    monkeypatch.setattr(sources, "reachable", lambda: asked.append("probe") or True)
    monkeypatch.setattr(parts, "KUBERNETES", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(sets._Ways, "_build", build)
    found = binaries.get("1.36.3", silent)
    assert asked[-4:] == [
        f"Kubernetes {os.environ[sources.VARIABLE]}",
        "probe",
        "Kubernetes http://127.0.0.1:9",
        "Kubernetes built",
    ]
    manifest = json.loads((found.folder.parent / "manifest.json").read_text())
    assert manifest["kubelet"]["origin"] == "go1.2.3"
    assert manifest["etcdctl"]["origin"] == os.environ[sources.VARIABLE]


def test_without_any_way_all_reasons_are_told(cache, monkeypatch):
    monkeypatch.setattr(sets._Ways, "_build", refuse)
    with pytest.raises(MissingError, match="pause 1 cannot be had: no build here") as caught:
        binaries.get("1.36.3", silent)
    assert sources.VARIABLE in str(caught.value)


def test_whether_releases_can_be_reached(tmp_path):
    with serving(tmp_path) as address:
        assert sources.reachable(address)
        assert sources.reachable(f"{address}/nowhere"), "a refusal is an answer"
    assert not sources.reachable(address)


def test_a_host_that_is_silent_is_given_up():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        assert not sources.reachable(f"http://127.0.0.1:{server.getsockname()[1]}", 0.2)
        assert time.monotonic() - began < 2


# Builds


def test_the_conformance_tests_come_the_same_ways(cache, site, monkeypatch):
    def build(self, part, folder):
        assert part.name == "agnhost", "no project publishes it but as an image"
        (folder / "agnhost").write_bytes(b"built")
        return "go1.2.3"

    monkeypatch.setattr(sets._Ways, "_build", build)
    publish(site, of=parts.conformance("1.36.3"))
    found = binaries.conformance("1.36.3", silent)
    assert found["e2e.test"].read_bytes() == content("e2e.test")
    assert found["agnhost"].read_bytes() == b"built"
    monkeypatch.delattr(sets._Ways, "make")
    assert binaries.conformance("1.36.3", silent) == found, "they are cached"


@pytest.fixture(scope="module")
def pause(tmp_path_factory) -> Path:
    """The pause program, built for real."""
    folder = tmp_path_factory.mktemp("pause")
    go_build.build(parts.PAUSE.recipe, folder, silent)
    return folder / "pause"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_pause_waits_reaps_and_ends(pause, number):
    assert b"/ld-linux" not in pause.read_bytes(), "it is static"
    # As the first process of a namespace, to which orphans fall.
    shell = 'sleep 0.2 & sleep 0.3 & exec "$0"'
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", shell, str(pause)],
    )
    try:
        first = within(5, lambda: children(process.pid))[0]
        within(5, lambda: Path(f"/proc/{first}/comm").read_text() == "pause\n")
        within(5, lambda: not children(first))
        os.kill(first, number)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """All children, those that ended and were not waited for too."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


FAKE_GO = """#!/bin/sh
[ "$1" = version ] && { echo go version go1.99.0 linux/amd64; exit; }
while [ "$1" != -o ]; do shift; done
echo half >"${2}half"
echo building >&2
touch "$MARK"
sleep 60
"""
# A shell starts what runs in its background deaf to SIGINT, and this inherits it.
GET = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bazaar.cluster import binaries
binaries.get('1.36.3', lambda _: None)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing(cache, site, monkeypatch, tmp_path, number):
    for path in site.rglob("pause*"):
        path.is_file() and path.unlink()
    mark, folder = tmp_path / "mark", tmp_path / "bin"
    folder.mkdir()
    (folder / "go").write_text(FAKE_GO)
    (folder / "go").chmod(0o755)
    variables = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "MARK": str(mark),
        # Nobody answers there: releases cannot be reached.
        "https_proxy": "http://127.0.0.1:9",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", GET], env=variables, stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        within(20, mark.exists)
        began = child_groups(process.pid)
        process.send_signal(number)
        assert process.wait(10) != 0
    finally:
        process.kill()
        process.wait()
    if number == signal.SIGINT:
        assert not list(cache.rglob(f"{sets._UNFINISHED}*"))
        assert not any(Path(f"/proc/{pid}").exists() for pid in began), "the client is ended too"
    for pid in began:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    assert binaries.cached("1.36.3") is None
    publish(site)
    assert binaries.get("1.36.3", silent)
    assert not list(cache.rglob(f"{sets._UNFINISHED}*")), "the next one sweeps"


def child_groups(pid: int) -> list[int]:
    return [child for child in children(pid) if os.getpgid(child) == child]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", binaries.VERSIONS)
def test_a_set_is_built_and_tells_its_versions(version, monkeypatch):
    """Into the machine's own cache: it costs minutes once."""
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    found = binaries.get(version, silent)
    for name, words, wanted in [
        ("kubelet", ["--version"], f"Kubernetes v{version}"),
        ("kube-apiserver", ["--version"], f"Kubernetes v{version}"),
        ("kubectl", ["version", "--client"], f"v{version}"),
        ("etcd", ["--version"], "etcd Version: 3.6.16"),
        ("etcdctl", ["version"], "3.6.16"),
        ("coredns", ["-version"], "CoreDNS-1.14.7"),
    ]:
        assert wanted in commands.run([found.folder / name, *words]).output


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_containerd_and_the_conformance_tests_are_built(monkeypatch):
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    found = {**binaries.containerd(silent), **binaries.conformance("1.36.3", silent)}
    for name, words, wanted in [
        ("containerd", ["--version"], "containerd/v2 v2.3.7"),
        ("ctr", ["--version"], "v2.3.7"),
        ("containerd-shim-runc-v2", ["-v"], "v2.3.7"),
        ("e2e.test", ["--version"], "v1.36.3"),
        ("agnhost", ["--help"], "netexec"),
    ]:
        assert wanted in commands.run([found[name], *words]).output
