"""What the kernel must be able to do for each layer, each found by doing it for a moment.

Nothing is concluded from a version: a container host may refuse what its kernel can do. What is
tried ends with the try, mostly in a namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bazaar.errors import BazaarError
from bazaar.host import commands


@dataclass(frozen=True, slots=True)
class Feature:
    """Something the kernel can do, or refuses here."""

    name: str
    layers: tuple[str, ...]
    purpose: str
    look: Callable[[], str | None]  # None: it can; else what is wrong
    remedy: str
    essential: bool = False  # without it no service runs

    def problem(self) -> str | None:
        """Try it; what is wrong, or None."""
        try:
            return self.look()
        except (BazaarError, OSError) as error:
            return error.message if isinstance(error, BazaarError) else str(error)


def _try(arguments: list[str]) -> str | None:
    finished = commands.run(arguments, check=False, timeout=10.0)
    if finished.code == 0:
        return None
    said = finished.errors.strip().splitlines()
    return said[-1] if said else f"{arguments[0]}: exit {finished.code}"


def _try_in_net(arguments: list[str]) -> str | None:
    """Run a program in a network namespace that ends with it."""
    if commands.which(arguments[0]) is None:
        return None  # that the program is missing is told by itself; the feature is unknown
    return _try(["unshare", "--net", *arguments])


def _overlay() -> str | None:
    """Mount one, in a mount namespace that ends with the program.

    On a tmpfs of its own: the folder at hand may be an overlay, on which none can stand.
    """
    with tempfile.TemporaryDirectory(prefix="bazaar-") as folder:
        for name in ("lower", "upper", "work", "merged"):
            (Path(folder) / name).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged"]
        return _try(["unshare", "--mount", *mount])


def _cgroup2() -> str | None:
    from bazaar.host import cgroups

    return None if cgroups.find().v2 else "no cgroup v2 hierarchy is mounted"


def _controllers() -> str | None:
    from bazaar.host import cgroups
    from bazaar.model.container import Limits

    return cgroups.problem(Limits(memory=1, cpus=1, pids=1))


def _bpf() -> str | None:
    from bazaar.bpf import features

    return None if features.have_bpf() else "bpf(2) is refused or missing"


def _tracepoints() -> str | None:
    from bazaar.bpf import features, filesystems

    if problem := _filesystem("tracefs", "/sys/kernel/tracing"):
        return problem
    if not filesystems.mounted("tracefs"):
        return None  # mounted when a probe first needs it; to look is not to change
    return None if features.have_tracepoints() else "a tracepoint cannot be opened"


def _xdp() -> str | None:
    """A native XDP program on a veth, in a network namespace that ends with the thread."""
    if commands.which("ip") is None:
        return None  # as above: what is not known is not called missing
    from bazaar.bpf import features
    from bazaar.host import namespaces

    answers: list[str | None] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x40000000) != 0:  # CLONE_NEWNET, include/uapi/linux/sched.h
            answers.append(os.strerror(ctypes.get_errno()))
            return
        namespaces.batch(["link add name bz0 type veth"])
        able = features.have_xdp_native(socket.if_nametoindex("bz0"))
        answers.append(None if able else "a native XDP program on a veth is refused")

    namespaces.aside(work)
    return answers[0]


def _live_frames() -> str | None:
    from bazaar.bpf import features

    return None if features.have_xdp_live_frames() else "BPF_PROG_RUN sends no frames"


def _exists(path: str) -> str | None:
    return None if Path(path).exists() else f"there is no {path}"


def _filesystem(kind: str, usual: str) -> str | None:
    """Mounted, or to be mounted when it is first used."""
    from bazaar.bpf import filesystems

    if filesystems.mounted(kind) or Path(usual).is_dir():
        return None
    return f"there is no {usual}"


FEATURES = (
    Feature(
        "network namespaces",
        ("run", "site"),
        "a network for each replica",
        lambda: _try(["unshare", "--net", "true"]),
        "a kernel with CONFIG_NET_NS, and a container that may use it",
        essential=True,
    ),
    Feature(
        "veth",
        ("run", "site"),
        "links between namespaces",
        lambda: _try_in_net(["ip", "link", "add", "name", "bz0", "type", "veth"]),
        "a kernel with CONFIG_VETH (modprobe veth)",
        essential=True,
    ),
    Feature(
        "bridge",
        ("site",),
        "a site's own network",
        lambda: _try_in_net(["ip", "link", "add", "name", "bz0", "type", "bridge"]),
        "a kernel with CONFIG_BRIDGE (modprobe bridge)",
        essential=True,
    ),
    Feature(
        "overlayfs",
        ("run",),
        "replicas sharing an image",
        _overlay,
        "a kernel with CONFIG_OVERLAY_FS (modprobe overlay)",
        essential=True,
    ),
    Feature(
        "nftables",
        ("site", "drill"),
        "the way out; the shield's rival",
        lambda: _try_in_net(["nft", "add", "table", "inet", "bazaar"]),
        "a kernel with CONFIG_NF_TABLES (modprobe nf_tables)",
    ),
    Feature(
        "cgroup v2",
        ("trace", "run"),
        "telling containers apart in the kernel",
        _cgroup2,
        "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
    ),
    Feature(
        "cgroup controllers",
        ("run",),
        "limits of memory, cpus and processes",
        _controllers,
        "control groups that are writable here, with memory, cpu and pids",
    ),
    Feature(
        "BPF",
        ("trace", "shield"),
        "probes and the shield",
        _bpf,
        "a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
    ),
    Feature(
        "BTF",
        ("trace",),
        "types of the kernel's events",
        lambda: _exists("/sys/kernel/btf/vmlinux"),
        "a kernel with CONFIG_DEBUG_INFO_BTF",
    ),
    Feature(
        "tracepoints",
        ("trace",),
        "the kernel's events, by tracefs",
        _tracepoints,
        "a kernel with CONFIG_FTRACE_SYSCALLS, and the right to mount tracefs",
    ),
    Feature(
        "XDP native on veth",
        ("shield",),
        "dropping floods before netfilter",
        _xdp,
        "a kernel whose veth driver takes XDP programs",
    ),
    Feature(
        "XDP live frames",
        ("drill",),
        "the drills' packet generator",
        _live_frames,
        "a kernel of 5.18 or later (BPF_F_TEST_XDP_LIVE_FRAMES)",
    ),
    Feature(
        "bpffs",
        ("trace", "shield"),
        "probes and the shield outliving a crash",
        lambda: _filesystem("bpf", "/sys/fs/bpf"),
        "a kernel with CONFIG_BPF_SYSCALL, and a container that may mount",
    ),
)
