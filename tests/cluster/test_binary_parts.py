"""The table of a cluster's programs, and that it says what the Go modules pin."""

from __future__ import annotations

import re

import pytest

from bazaar.cluster import binaries
from bazaar.cluster.binaries import parts
from bazaar.errors import UsageError


@pytest.mark.parametrize("version", binaries.VERSIONS)
def test_the_parts_of_a_version_are_all_its_programs(version):
    named = [name for part in parts.of(version) for name in part.packages]
    assert sorted(named) == sorted(binaries.NAMES)
    for part in parts.of(version):
        published = [name for release in part.releases for name in release.members]
        assert sorted(published) == sorted(part.packages), part.title
        assert all("{arch}" in release.path for release in part.releases)


@pytest.mark.parametrize("version", binaries.VERSIONS)
def test_what_is_built_is_what_the_modules_pin(version):
    for part in (*parts.of(version), *parts.CONTAINERD):
        text = (part.recipe.module / "go.mod").read_text()
        assert text.startswith(f"module bazaar/go/{part.module}\n")
        for package in part.packages.values():
            if part.name == "pause":
                assert package == "bazaar/go/pause"
                continue
            assert re.search(rf"^(tool )?\t?{re.escape(package)}$", text, re.MULTILINE), package
            pinned = {
                version
                for module, version in re.findall(
                    r"^(?:require )?\t?(\S+) v(\S+)", text, re.MULTILINE
                )
                if package == module or package.startswith(module + "/")
            }
            assert part.version in pinned, part.title


@pytest.mark.parametrize("version", binaries.VERSIONS)
def test_every_module_of_kubernetes_is_of_one_release(version):
    part = parts.kubernetes(version)
    text = (part.recipe.module / "go.mod").read_text()
    staging = re.findall(r"^\t(k8s\.io/\S+) => (\S+) v(\S+)$", text, re.MULTILINE)
    assert len(staging) > 30
    assert {version for _, _, version in staging} == {part.version.replace("1.", "0.", 1)}
    assert all(old == new for old, new, _ in staging)


def test_kubernetes_is_told_its_version():
    flags = parts.kubernetes("1.36.3").ldflags
    assert flags == (
        "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 "
        "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
    )
    assert "gitVersion=v1.35.4" in parts.kubernetes("1.35.4").ldflags


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("go.etcd.io/etcd/etcdctl/v3", "etcdctl"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("github.com/coredns/coredns", "coredns"),
        ("k8s.io/kubernetes/test/e2e", "e2e.test"),
    ],
)
def test_what_go_calls_a_program(package, name):
    assert parts.built_name(package, test=name.endswith(".test")) == name


def test_the_conformance_tests_are_of_the_newest_version_and_pinned_with_it():
    named = [name for part in parts.conformance("1.36.3") for name in part.packages]
    assert named == ["e2e.test", "agnhost"]
    for part in parts.conformance("1.36.3"):
        text = "".join(path.read_text() for path in part.recipe.module.glob("*.[mg]o*"))
        assert all(package in text for package in part.packages.values())
    with pytest.raises(UsageError, match=r"1\.35\.4 cannot be had"):
        parts.conformance("1.35.4")
