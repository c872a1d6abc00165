"""Programs the tests attach to tracepoints and cgroups."""

from __future__ import annotations

from bazaar.bpf.python import (
    IP_TCP,
    IP_UDP,
    Array,
    HashMap,
    IPv4,
    RawTracepointContext,
    SkBuff,
    Struct,
    TracepointContext,
    Udp,
    Variable,
    cgroup_egress,
    cgroup_ingress,
    function,
    get_current_pid_tgid,
    i64,
    packet,
    raw_tracepoint,
    tracepoint,
    u32,
    u64,
)


class Watched(Struct):
    """Whose system calls are counted."""

    process: u64


class WriteEntered(TracepointContext):
    """Record of syscalls:sys_enter_write."""

    number: i64
    descriptor: u64
    buffer: u64
    count: u64


watched = Variable("watched", Watched)
sizes = HashMap("sizes", key=u64, value=u64, max_entries=128)
numbers = HashMap("numbers", key=u64, value=u64, max_entries=512)
packets = HashMap("packets", key=u32, value=u64, max_entries=256)
octets = Array("octets", value=u64, max_entries=1)


@function
def is_watched() -> int:
    return get_current_pid_tgid() >> 32 == watched.current.process


@tracepoint
def writes(context: WriteEntered) -> int:
    if is_watched():
        sizes[context.count] += 1
    return 0


@raw_tracepoint
def calls(context: RawTracepointContext) -> int:
    if is_watched():
        numbers[context.arguments[1]] += 1
    return 0


@function
def count(context: SkBuff) -> None:
    ip = packet(context, IPv4)
    if ip is not None and ip.version >> 4 == 4:
        packets[ip.protocol] += 1
        octets[0] += context.len


@cgroup_egress
def sent(context: SkBuff) -> int:
    count(context)
    return 1


@cgroup_ingress
def received(context: SkBuff) -> int:
    count(context)
    return 1


@cgroup_egress
def no_datagrams(context: SkBuff) -> int:
    """Lets TCP pass, and datagrams to port 7 only."""
    ip = packet(context, IPv4)
    if ip is None or ip.protocol == IP_TCP:
        return 1
    if ip.protocol == IP_UDP:
        udp = packet(context, Udp, 20)
        return 1 if udp is not None and udp.destination == 7 else 0
    return 1
