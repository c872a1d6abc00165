"""The parts of a cluster: each a project's programs, of one version, in one Go module.

Everything here is a table: versions are those of the modules in go/, addresses those of the
projects' releases. A mirror has the same paths below its own address.
"""

from __future__ import annotations

import re

from bazaar.errors import UsageError
from bazaar.host import go_build
from bazaar.model.record import record

VERSIONS = ("1.36.3", "1.35.4")  # newest first
KUBERNETES = "https://dl.k8s.io"
GITHUB = "https://github.com"
_KUBERNETES = (
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "kubectl"),
)
_KUBERNETES_TAGS = "selinux,notest,grpcnotrace"  # as its releases are built with
_PLUGINS = {
    "bridge": "main/bridge",
    "host-local": "ipam/host-local",
    "loopback": "main/loopback",
    "portmap": "meta/portmap",
}
NAMES = ("etcd", "etcdctl", "etcdutl", *_KUBERNETES, "coredns", *_PLUGINS, "pause")


@record
class Release:
    """One file of a project's release: a program, or a tar archive of some.

    ``{arch}`` in a path is the architecture by Go's name.
    """

    path: str
    checksums: str  # the path of the list that has this file's SHA-256
    members: dict[str, str]  # a program's name: its path in the archive, "" for the file itself


@record
class Part:
    """One project's programs."""

    name: str  # for people
    version: str
    module: str  # the folder below go/
    packages: dict[str, str]  # a program's name: the Go package it is built from
    host: str  # where its release is; "" when there is none
    releases: tuple[Release, ...]
    ldflags: str = "-s -w"
    tags: str = ""
    test: bool = False  # the packages' test programs rather than their own

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.name} {self.version}"

    @property
    def recipe(self) -> go_build.Recipe:
        """How it is built from its Go module."""
        return go_build.Recipe(
            self.title,
            go_build.MODULES / self.module,
            tuple(self.packages.values()),
            self.ldflags,
            self.tags,
            self.test,
        )


def of(version: str) -> tuple[Part, ...]:
    """The parts of a cluster with this version of Kubernetes, the quickest to build first.

    Raises UsageError for a version that cannot be had.
    """
    if version not in VERSIONS:
        raise UsageError(
            f"Kubernetes {version} is not among the versions Bazaar knows",
            hint=f"versions: {', '.join(VERSIONS)}",
        )
    return (PAUSE, CNI, ETCD, COREDNS, kubernetes(version))


def kubernetes(version: str) -> Part:
    """Kubernetes' own programs, built as its own releases are."""
    folder = f"v{version}/bin/linux/{{arch}}"
    return Part(
        "Kubernetes",
        version,
        _kubernetes_module(version),
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES},
        KUBERNETES,
        tuple(
            Release(f"{folder}/{name}", f"{folder}/{name}.sha256", {name: ""})
            for name in _KUBERNETES
        ),
        _kubernetes_ldflags(version),
        _KUBERNETES_TAGS,
    )


def conformance(version: str) -> tuple[Part, ...]:
    """Kubernetes' end-to-end tests and the program of the image most of their pods run.

    Raises UsageError for a version whose tests cannot be had.
    """
    if version != VERSIONS[0]:
        raise UsageError(
            f"the conformance tests of Kubernetes {version} cannot be had",
            hint=f"those of {VERSIONS[0]} can",
        )
    module, ldflags = _kubernetes_module(version), _kubernetes_ldflags(version)
    archive = f"v{version}/kubernetes-test-linux-{{arch}}.tar.gz"
    tests = Part(
        "Kubernetes' tests",
        version,
        module,
        {"e2e.test": "k8s.io/kubernetes/test/e2e"},
        KUBERNETES,
        _archive(archive, f"{archive}.sha256", {"e2e.test": "kubernetes/test/bin/e2e.test"}),
        ldflags,
        _KUBERNETES_TAGS,
        test=True,
    )
    agnhost = {"agnhost": "k8s.io/kubernetes/test/images/agnhost"}
    return (tests, Part("agnhost", version, module, agnhost, "", (), ldflags, _KUBERNETES_TAGS))


def built_name(package: str, *, test: bool = False) -> str:
    """What the Go client calls the program of a package: its last word that is no version."""
    words = [word for word in package.split("/") if not re.fullmatch(r"v\d+", word)]
    return f"{words[-1]}.test" if test else words[-1]


def _kubernetes_module(version: str) -> str:
    return f"kubernetes-{version.rpartition('.')[0]}"


def _kubernetes_ldflags(version: str) -> str:
    """Its programs are told their version."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    told = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]
    return " ".join(["-s -w", *told])


def _archive(path: str, checksums: str, members: dict[str, str]) -> tuple[Release]:
    return (Release(path, checksums, members),)


_ETCD_FOLDER = "etcd-io/etcd/releases/download/v3.6.16"
ETCD = Part(
    "etcd",
    "3.6.16",
    "etcd",
    {
        "etcd": "go.etcd.io/etcd/server/v3",
        "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
        "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
    },
    GITHUB,
    _archive(
        f"{_ETCD_FOLDER}/etcd-v3.6.16-linux-{{arch}}.tar.gz",
        f"{_ETCD_FOLDER}/SHA256SUMS",
        {name: f"etcd-v3.6.16-linux-{{arch}}/{name}" for name in ("etcd", "etcdctl", "etcdutl")},
    ),
)
_COREDNS_FILE = "coredns/coredns/releases/download/v1.14.7/coredns_1.14.7_linux_{arch}.tgz"
COREDNS = Part(
    "CoreDNS",
    "1.14.7",
    "coredns",
    {"coredns": "github.com/coredns/coredns"},
    GITHUB,
    _archive(_COREDNS_FILE, f"{_COREDNS_FILE}.sha256", {"coredns": "coredns"}),
)
_CNI_FILE = (
    "containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-{arch}-v1.9.1.tgz"
)
CNI = Part(
    "CNI plugins",
    "1.9.1",
    "cni",
    {
        name: f"github.com/containernetworking/plugins/plugins/{path}"
        for name, path in _PLUGINS.items()
    },
    GITHUB,
    _archive(_CNI_FILE, f"{_CNI_FILE}.sha256", {name: name for name in _PLUGINS}),
)
# Bazaar's own: no project publishes it but as an image.
_PAUSE_FILE = "bazaar/pause/1/linux/{arch}/pause"
PAUSE = Part(
    "pause",
    "1",
    "pause",
    {"pause": "bazaar/go/pause"},
    "",
    (Release(_PAUSE_FILE, f"{_PAUSE_FILE}.sha256", {"pause": ""}),),
)
# A container runtime, for machines that cannot get one from their distribution. runc is none of
# it: it needs a C compiler.
_CONTAINERD = "github.com/containerd/containerd/v2"
_CONTAINERD_FILE = (
    "containerd/containerd/releases/download/v2.3.7/containerd-static-2.3.7-linux-{arch}.tar.gz"
)


def _containerd(name: str, tags: str, programs: tuple[str, ...]) -> Part:
    return Part(
        name,
        "2.3.7",
        "containerd",
        {program: f"{_CONTAINERD}/cmd/{program}" for program in programs},
        GITHUB,
        _archive(
            _CONTAINERD_FILE,
            f"{_CONTAINERD_FILE}.sha256sum",
            {program: f"bin/{program}" for program in programs},
        ),
        f"-s -w -X {_CONTAINERD}/version.Version=v2.3.7",
        tags,
    )


CONTAINERD = (
    _containerd("containerd", "urfave_cli_no_docs", ("containerd", "ctr")),
    # One runs for each pod: as its project builds it, without what only others need.
    _containerd("containerd's shim", "urfave_cli_no_docs,no_grpc", ("containerd-shim-runc-v2",)),
)


def _unpublished(name: str, version: str, package: str, ldflags: str = "") -> Part:
    """A program that its project publishes as an image alone: a mirror may have it."""
    path = f"bazaar/{name}/{version}/linux/{{arch}}/{name}"
    return Part(
        name,
        version,
        name,
        {name: package},
        "",
        (Release(path, f"{path}.sha256", {name: ""}),),
        f"-s -w{ldflags}",
    )


# What clusters have besides: a provisioner of volumes on local disks with the program of its
# helper pods, which is Bazaar's own, and the figures of `kubectl top`.
ADDONS = (
    _unpublished("volume", "1", "bazaar/go/volume"),
    _unpublished(
        "local-path-provisioner",
        "0.0.30",
        "github.com/rancher/local-path-provisioner",
        " -X main.VERSION=v0.0.30",
    ),
    _unpublished(
        "metrics-server",
        "0.9.0",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        " -X k8s.io/component-base/version.gitVersion=v0.9.0",
    ),
)
