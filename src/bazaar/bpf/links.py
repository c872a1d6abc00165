"""Attaching programs: each function gives a Link, and closing the link takes the program off.

Interfaces are numbers of the network namespace the calling thread is in.
"""

from __future__ import annotations

import errno as errors
import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Self

from bazaar.bpf import perf, pins, syscall
from bazaar.bpf.perf import Software
from bazaar.bpf.programs import AttachType, Program
from bazaar.bpf.syscall import Command, Descriptor, address, buffer
from bazaar.errors import BtfError, KernelError, MissingError, UsageError
from bazaar.model.record import record

_IOC_SET_BPF, _IOC_ENABLE = 0x40042408, 0x2400
_TYPES = (
    "unspecified", "raw_tracepoint", "tracing", "cgroup", "iter", "netns", "xdp", "perf_event",
    "kprobe_multi", "struct_ops", "netfilter", "tcx", "uprobe_multi", "netkit", "sockmap",
)  # fmt: skip


class XdpMode(IntEnum):
    """Where an XDP program runs, as link flags say it."""

    GENERIC = 1 << 1  # in the kernel's receive path, for any device
    NATIVE = 1 << 2  # in the device's driver
    OFFLOAD = 1 << 3  # on the network card


@record
class LinkInfo:
    """What the kernel says of a link. ``ifindex`` is 0 when the interface is gone (or none)."""

    id: int
    type: str
    program_id: int
    ifindex: int = 0


class Link(Descriptor):
    """A program attached to something until the last descriptor or pin of the link is gone."""

    def info(self) -> LinkInfo:
        """What the kernel says of it; KernelError where the kernel holds no link (before 5.15
        a perf event's own descriptor)."""
        place = buffer(64)
        attributes = bytearray(struct.pack("<IIQ", self.fd, len(place), address(place)))
        syscall.bpf(Command.OBJ_GET_INFO_BY_FD, attributes, "cannot read a link's description")
        kind, number, program, _, ifindex = struct.unpack_from("<5I", place.raw)
        name = _TYPES[kind] if kind < len(_TYPES) else str(kind)
        return LinkInfo(number, name, program, ifindex if name in {"xdp", "tcx"} else 0)

    def update(self, program: Program) -> None:
        """Put another program of the same type in its place, without a gap."""
        attributes = bytearray(struct.pack("<IIII", self.fd, program.fd, 0, 0))
        syscall.bpf(Command.LINK_UPDATE, attributes, f"cannot replace by program '{program.name}'")

    def detach(self) -> None:
        """Take the program off at once, even where a pin would keep the link."""
        attributes = bytearray(struct.pack("<I", self.fd))
        result = syscall.call(Command.LINK_DETACH, attributes)
        # Links of tracepoints and perf events end with their last descriptor only.
        if result < 0 and result != -errors.EOPNOTSUPP:
            raise syscall.failure(-result, "cannot detach a link")

    def pin(self, path: str) -> None:
        """Keep it attached under a path in bpffs after everybody closed it."""
        pins.pin(self.fd, path)


class LinkGroup:
    """Several links that are one to the user, such as one for each CPU."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)

    def close(self) -> None:
        for link in self.links:
            link.close()

    def detach(self) -> None:
        for link in self.links:
            link.detach()

    def pin(self, path: str) -> None:
        """Pin as ``path-0``, ``path-1`` …"""
        for number, link in enumerate(self.links):
            link.pin(f"{path}-{number}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _create(program: Program, target: int, kind: int, what: str, flags: int = 0) -> Link:
    result = _try_create(program, target, kind, flags)
    if result < 0:
        raise syscall.failure(-result, what)
    return Link(result)


def _try_create(program: Program, target: int, kind: int, flags: int = 0) -> int:
    # prog_fd, target_fd or target_ifindex, attach_type, flags, and the kind's own part
    attributes = struct.pack("<IIIIQQ", program.fd, target, kind, flags, 0, 0)
    return syscall.call(Command.LINK_CREATE, bytearray(attributes))


# --- tracing ---


def tracepoint(program: Program, name: str) -> Link:
    """Attach to ``category:name`` of tracefs, e.g. ``syscalls:sys_enter_write``."""
    category, colon, event = name.partition(":")
    if not colon:
        raise UsageError(f"'{name}' is no tracepoint's name", hint="write category:name")
    return _on_event(program, perf.tracepoint(category, event), f"tracepoint {name}")


def raw_tracepoint(program: Program, name: str) -> Link:
    """Attach to a tracepoint without its arguments' packing; ``name`` has no category."""
    place = buffer(name.encode() + b"\0")
    attributes = bytearray(struct.pack("<QIIQ", address(place), program.fd, 0, 0))
    result = syscall.call(Command.RAW_TRACEPOINT_OPEN, attributes)
    if result == -errors.ENOENT:
        raise MissingError(
            f"this kernel has no raw tracepoint '{name}'",
            hint="raw tracepoints are named without their category, e.g. sched_switch",
        )
    if result < 0:
        raise syscall.failure(-result, f"cannot attach '{program.name}' to raw tracepoint {name}")
    return Link(result)


def tp_btf(program: Program) -> Link:
    """Attach a TRACING program to the tracepoint it was loaded for (``attach_btf_id``)."""
    attributes = bytearray(struct.pack("<QIIQ", 0, program.fd, 0, 0))
    what = f"cannot attach '{program.name}' to its tracepoint"
    return Link(syscall.bpf(Command.RAW_TRACEPOINT_OPEN, attributes, what))


def tp_btf_target(name: str) -> int:
    """The ``attach_btf_id`` for a tracepoint: the typedef ``btf_trace_<name>``."""
    from bazaar.bpf import btf

    try:
        return btf.kernel().find(f"btf_trace_{name}", btf.Kind.TYPEDEF)
    except BtfError:
        raise MissingError(
            f"this kernel's BTF has no tracepoint '{name}'",
            hint="raw tracepoints are named without their category, e.g. sched_switch",
        ) from None


def perf_event(
    program: Program,
    kind: Software = Software.CPU_CLOCK,
    *,
    period: int = 0,
    frequency: int = 0,
    cpus: Iterable[int] | None = None,
    pid: int = -1,
) -> LinkGroup:
    """Run on every ``period``-th software event, or ``frequency`` times a second, on each of
    the CPUs (default: all that are online). Clocks count nanoseconds."""
    if bool(period) == bool(frequency):
        raise UsageError("a perf event takes either a period or a frequency")
    links: list[Link] = []
    try:
        for cpu in _online_or(cpus):
            event = perf.software(kind, cpu=cpu, pid=pid, period=period, frequency=frequency)
            links.append(_on_event(program, event, f"{kind.name.lower()} on CPU {cpu}"))
    except BaseException:
        LinkGroup(links).close()
        raise
    return LinkGroup(links)


def profile(program: Program, frequency: int) -> LinkGroup:
    """Sample every CPU ``frequency`` times a second."""
    return perf_event(program, Software.CPU_CLOCK, frequency=frequency)


def interval(program: Program, period_ns: int) -> LinkGroup:
    """Run every so many nanoseconds, on one CPU; the kernel allows no less than 10,000."""
    return perf_event(program, Software.CPU_CLOCK, period=period_ns, cpus=perf.online_cpus()[:1])


def _online_or(cpus: Iterable[int] | None) -> list[int]:
    """The CPUs named, or all that are online."""
    return perf.online_cpus() if cpus is None else list(cpus)


def uprobe(
    program: Program, path: str, offset: int, *, returns: bool = False, pid: int = -1
) -> Link:
    """Attach a KPROBE program to a file offset of a program or library, or to the return of
    the function there."""
    event = perf.uprobe(path, offset, returns=returns, pid=pid)
    return _on_event(program, event, f"{path}+{offset:#x}")


def _on_event(program: Program, event: Descriptor, where: str) -> Link:
    """A link on a perf event; the link keeps the event, so its descriptor is closed."""
    what = f"cannot attach '{program.name}' to {where}"
    with event:
        result = _try_create(program, event.fd, AttachType.PERF_EVENT)
        if result >= 0:
            return Link(result)
        if result != -errors.EINVAL:
            raise syscall.failure(-result, what)
        # Before perf links (Linux 5.15): the event's own descriptor is what holds it.
        try:
            fcntl.ioctl(event.fd, _IOC_SET_BPF, program.fd)
            fcntl.ioctl(event.fd, _IOC_ENABLE, 0)
        except OSError as error:
            raise syscall.failure(error.errno or 0, what) from error
        return Link(os.dup(event.fd))


# --- network ---


def xdp(program: Program, ifindex: int, mode: XdpMode = XdpMode.NATIVE) -> Link:
    """Attach to an interface's receive side, before the kernel makes a packet of the frame."""
    result = _try_create(program, ifindex, AttachType.XDP, mode)
    if result >= 0:
        return Link(result)
    hint = {
        errors.EBUSY: "the interface has an XDP program already: `bpftool net` shows it",
        errors.ENODEV: "no such interface in this network namespace",
        errors.EINVAL: "no such interface in this network namespace, or no XDP links",
    }.get(-result)
    if mode == XdpMode.NATIVE and -result in {errors.EOPNOTSUPP, syscall.ENOTSUPP}:
        hint = "its driver has no XDP: attach with XdpMode.GENERIC"
    what = f"cannot attach XDP program '{program.name}' to interface {ifindex}"
    raise syscall.failure(-result, what, hint=hint)


def tcx(program: Program, ifindex: int, *, egress: bool = False) -> Link:
    """Attach a SCHED_CLS program to an interface's traffic, in or out."""
    kind = AttachType.TCX_EGRESS if egress else AttachType.TCX_INGRESS
    side = "egress" if egress else "ingress"
    what = f"cannot attach '{program.name}' to the {side} of interface {ifindex}"
    return _create(program, ifindex, kind, what)


def cgroup(program: Program, path: str, kind: AttachType) -> Link:
    """Attach to a cgroup v2 directory; other programs may be attached there too."""
    what = f"cannot attach '{program.name}' to cgroup {path}"
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise syscall.failure(error.errno or 0, what) from error
    try:
        return _create(program, folder, kind, what)
    finally:
        os.close(folder)


# --- links that exist already ---


def open_pinned(path: str) -> Link:
    """The link pinned under a path, or KernelError."""
    return Link(pins.open_fd(path, "link"))


def open_pinned_group(path: str) -> LinkGroup:
    """The links pinned as ``path-0``, ``path-1`` …; KernelError when there is none."""
    import glob

    names = sorted(glob.glob(f"{glob.escape(path)}-[0-9]*"))
    if not names:
        raise KernelError(f"nothing is pinned at {path}-0", errno=errors.ENOENT)
    links: list[Link] = []
    try:
        links.extend(open_pinned(name) for name in names)
    except BaseException:
        LinkGroup(links).close()
        raise
    return LinkGroup(links)
