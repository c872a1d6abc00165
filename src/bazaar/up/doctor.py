"""What this machine needs for each layer: what is there, what for, and how to get the rest.

Kernel features are probed by using them in a namespace that ends with the probe; nothing is
concluded from a version.
"""

from __future__ import annotations

import ctypes
import os
import socket
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bazaar.errors import BazaarError, MissingError
from bazaar.host import commands, packages
from bazaar.spec.resolved import ResolvedBazaar

Progress = Callable[[str], None]
Look = Callable[[], str | None]  # None: it is there; else what is wrong

LAYERS = ("run", "site", "trace", "shield", "drill")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing a layer needs of the machine."""

    name: str
    kind: str  # privilege | kernel | program | engine
    layers: tuple[str, ...]
    purpose: str
    present: bool
    found: str = ""  # what is there, or what is wrong
    remedy: str = ""  # how to get it
    package: str | None = None  # Debian's, where installing it is enough
    essential: bool = False  # without it no service runs


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row of the tables below."""

    name: str
    layers: tuple[str, ...]
    purpose: str
    essential: bool = False


PROGRAMS: dict[str, tuple[str, Wanted]] = {  # program → Debian's package
    "ip": ("iproute2", Wanted("ip", ("site", "run"), "namespaces, links, addresses", True)),
    "unshare": ("util-linux", Wanted("unshare", ("run", "site"), "trying kernel features", True)),
    "haproxy": ("haproxy", Wanted("haproxy", ("site",), "the balance over replicas", True)),
    "dnsmasq": ("dnsmasq-base", Wanted("dnsmasq", ("site",), "names of services", True)),
    "nft": ("nftables", Wanted("nft", ("site", "drill"), "the way out; the shield's rival")),
    "mmdebstrap": (
        "mmdebstrap",
        Wanted("mmdebstrap", ("run",), "images of Debian packages", True),
    ),
    "skopeo": ("skopeo", Wanted("skopeo", ("run",), "images of registries")),
    "runc": ("runc", Wanted("runc", ("run",), "containers on the host's kernel", True)),
    "wrk": ("wrk", Wanted("wrk", ("drill",), "legitimate clients in drills")),
    "zstd": ("zstd", Wanted("zstd", ("run",), "images of registries packed by it")),
}


def needs(layers: Collection[str] = LAYERS) -> list[Need]:
    """Everything those layers need, each looked for; takes about a tenth of a second."""
    found = [_privilege(), *_kernel(), *_programs(), *_engines()]
    return [need for need in found if set(need.layers) & set(layers)]


def for_bazaar(wanted: ResolvedBazaar) -> list[Need]:
    """What one bazaar needs; essential is what its own services cannot run without."""
    layers = {"run", "site"}
    layers |= {"trace"} if wanted.probes else set()
    layers |= {"shield"} if wanted.shield else set()
    kernels = {service.kernel for service in wanted.services}
    schemes = {service.image.partition(":")[0] for service in wanted.services}
    registries = schemes - {"deb", "oci", "dir"}
    used = {
        "gvisor": "own" in kernels,
        "runc": "shared" in kernels,
        "mmdebstrap": "deb" in schemes,
        "skopeo": bool(registries) or "oci" in schemes,
    }
    return [
        replace(need, essential=used.get(need.name, need.essential))
        for need in needs(layers)
        if used.get(need.name, True)
    ]


def missing(found: Iterable[Need]) -> list[Need]:
    """Those that are not there."""
    return [need for need in found if not need.present]


def ensure(found: Sequence[Need], progress: Progress) -> list[Need]:
    """Get what can be got of what is missing; what is missing still, none of it essential.

    All packages come by one call of apt. Raises MissingError that names every essential need
    which is not there and how to get it. What nothing can be done about (privileges, the
    kernel) is told before anything is installed.
    """
    lacking = missing(found)
    _refuse([need for need in lacking if need.kind in ("privilege", "kernel")])
    problems: dict[str, str] = {}
    wanted = list(dict.fromkeys(need.package for need in lacking if need.package))
    if wanted and packages.installable():
        try:
            packages.install(wanted, progress)
        except BazaarError as error:
            # Whether that matters is seen by what is missing afterwards. Without the programs
            # no engine is of use: building one would only take time.
            problems = {need.name: error.message for need in lacking if need.package}
            _refuse([need for need in _left(found, problems) if need.package])
    for need in lacking:
        if need.kind == "engine":
            problems |= _get_engine(need.name, progress)
    left = _left(found, problems) if lacking else []
    _refuse(left)
    return left


def _refuse(lacking: Iterable[Need]) -> None:
    hard = [need for need in lacking if need.essential]
    if not hard:
        return
    reasons: dict[str, list[str]] = {}
    for need in hard:
        reasons.setdefault(need.found or "missing", []).append(f"{need.name} ({need.purpose})")
    lines = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    remedies = dict.fromkeys(need.remedy for need in hard if need.remedy)
    one = "apt-get install "
    if names := [remedy.removeprefix(one) for remedy in remedies if remedy.startswith(one)]:
        others = (remedy for remedy in remedies if not remedy.startswith(one))
        remedies = dict.fromkeys([one + " ".join(names), *others])
    raise MissingError(f"this machine lacks {'; '.join(lines)}", hint="\n".join(remedies) or None)


def _left(found: Sequence[Need], problems: dict[str, str]) -> list[Need]:
    """Those of the same needs that are missing now, looked for again."""
    essential = {need.name: need.essential for need in found}
    return [
        replace(need, essential=essential[need.name], found=problems.get(need.name, need.found))
        for need in missing(needs())
        if need.name in essential
    ]


def _get_engine(name: str, progress: Progress) -> dict[str, str]:
    from bazaar.run import engines

    try:
        engines.ensure(name, progress)
    except BazaarError as error:
        return {name: error.message}
    return {}


def _privilege() -> Need:
    present = os.geteuid() == 0
    return Need(
        "root",
        "privilege",
        LAYERS,
        "namespaces, control groups, BPF",
        present,
        "" if present else f"user {os.geteuid()}",
        "" if present else "run it by sudo",
        essential=True,
    )


def _programs() -> list[Need]:
    found: list[Need] = []
    debian = packages.system().debian
    for program, (package, wanted) in PROGRAMS.items():
        path = commands.which(program)
        how = f"apt-get install {package}" if debian else f"install {program} (Debian: {package})"
        found.append(
            Need(
                wanted.name,
                "program",
                wanted.layers,
                wanted.purpose,
                path is not None,
                path or "",
                "" if path else how,
                None if path else package,
                wanted.essential,
            )
        )
    return found


def _engines() -> list[Need]:
    from bazaar.run import engines

    found: list[Need] = []
    for status in engines.available():
        if status.name == "shared":
            continue  # runc stands among the programs
        found.append(
            Need(
                status.name,
                "engine",
                ("run",),
                status.isolation,
                status.problem is None,
                status.problem or str(status.path or ""),
                "" if status.problem is None else status.hint or "bazaar doctor --fix gets it",
                essential=True,
            )
        )
    return found


def _kernel() -> list[Need]:
    """Each kernel feature, used for a moment."""
    if os.geteuid() != 0:
        return []  # every one of them would fail for want of root, which is told already
    rows: list[tuple[Wanted, Look, str]] = [
        (
            Wanted("network namespaces", ("run", "site"), "a network for each replica", True),
            lambda: _try(["unshare", "--net", "true"]),
            "a kernel with CONFIG_NET_NS, and a container that may use it",
        ),
        (
            Wanted("veth", ("run", "site"), "links between namespaces", True),
            lambda: _try_in_net(["ip", "link", "add", "name", "bz0", "type", "veth"]),
            "a kernel with CONFIG_VETH (modprobe veth)",
        ),
        (
            Wanted("bridge", ("site",), "a site's own network", True),
            lambda: _try_in_net(["ip", "link", "add", "name", "bz0", "type", "bridge"]),
            "a kernel with CONFIG_BRIDGE (modprobe bridge)",
        ),
        (
            Wanted("overlayfs", ("run",), "replicas sharing an image", True),
            _overlay,
            "a kernel with CONFIG_OVERLAY_FS (modprobe overlay)",
        ),
        (
            Wanted("nftables", ("site", "drill"), "the way out; the shield's rival"),
            lambda: _try_in_net(["nft", "add", "table", "inet", "bazaar"]),
            "a kernel with CONFIG_NF_TABLES (modprobe nf_tables)",
        ),
        (
            Wanted("cgroup v2", ("trace", "run"), "telling containers apart in the kernel"),
            _cgroup2,
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
        (
            Wanted("cgroup controllers", ("run",), "limits of memory, cpus and processes"),
            _controllers,
            "control groups that are writable here, with memory, cpu and pids",
        ),
        (Wanted("BPF", ("trace", "shield"), "probes and the shield"), _bpf, _BPF_REMEDY),
        (
            Wanted("BTF", ("trace",), "types of the kernel's events"),
            lambda: _exists("/sys/kernel/btf/vmlinux"),
            "a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
        (
            Wanted("tracepoints", ("trace",), "the kernel's events, by tracefs"),
            _tracepoints,
            "a kernel with CONFIG_FTRACE_SYSCALLS, and the right to mount tracefs",
        ),
        (
            Wanted("XDP native on veth", ("shield",), "dropping floods before netfilter"),
            _xdp,
            "a kernel whose veth driver takes XDP programs",
        ),
        (
            Wanted("XDP live frames", ("drill",), "the drills' packet generator"),
            _live_frames,
            "a kernel of 5.18 or later (BPF_F_TEST_XDP_LIVE_FRAMES)",
        ),
        (
            Wanted("bpffs", ("trace", "shield"), "probes and the shield outliving a crash"),
            lambda: _filesystem("bpf", "/sys/fs/bpf"),
            "a kernel with CONFIG_BPF_SYSCALL, and a container that may mount",
        ),
    ]
    found: list[Need] = []
    for wanted, look, remedy in rows:
        problem = _looked(look)
        found.append(
            Need(
                wanted.name,
                "kernel",
                wanted.layers,
                wanted.purpose,
                problem is None,
                problem or "",
                "" if problem is None else remedy,
                essential=wanted.essential,
            )
        )
    return found


_BPF_REMEDY = "a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"


def _looked(look: Look) -> str | None:
    try:
        return look()
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
