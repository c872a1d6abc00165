"""Programs that call kernel functions."""

from __future__ import annotations

from typing import cast

from bazaar.bpf.python import (
    ETH_IPV4,
    IP_UDP,
    XDP_DROP,
    XDP_PASS,
    Array,
    Ethernet,
    IPv4,
    Struct,
    Udp,
    XdpContext,
    i32,
    kernel_function,
    packet,
    u8,
    u16,
    u16be,
    u32be,
    u64,
    xdp,
)


class Flow(Struct):
    """The IPv4 part of ``struct bpf_sock_tuple``."""

    source: u32be
    destination: u32be
    source_port: u16be
    destination_port: u16be


class LookupOptions(Struct):
    """``struct bpf_ct_opts`` as it was before 6.12: 12 bytes, which later kernels take, too."""

    namespace: i32
    error: i32
    protocol: u8
    direction: u8
    reserved: u16


class Iterator(Struct):
    """``struct bpf_iter_num``."""

    state: u64


class Item(Struct):
    """What ``bpf_iter_num_next`` points to."""

    number: i32


errors = Array("errors", value=u64, max_entries=1)
sums = Array("sums", value=u64, max_entries=1)


@xdp
def tracked(context: XdpContext) -> int:
    """Drops datagrams of connections the kernel tracks."""
    ethernet = packet(context, Ethernet)
    if ethernet is None or ethernet.kind != ETH_IPV4:
        return XDP_PASS
    ip = packet(context, IPv4, 14)
    udp = packet(context, Udp, 34)
    if ip is None or udp is None:
        return XDP_PASS
    flow = Flow(
        source=ip.source,
        destination=ip.destination,
        source_port=udp.source,
        destination_port=udp.destination,
    )
    options = LookupOptions(namespace=-1, protocol=IP_UDP)
    found = kernel_function("bpf_xdp_ct_lookup", context, flow, 12, options, 12)
    if found:
        kernel_function("bpf_ct_release", found)
        return XDP_DROP
    errors[0] = 0 - options.error
    return XDP_PASS


@xdp
def leaking(context: XdpContext) -> int:
    """Keeps the connection: the verifier refuses it."""
    options = LookupOptions(namespace=-1, protocol=IP_UDP)
    flow = Flow()
    return 1 if kernel_function("bpf_xdp_ct_lookup", context, flow, 12, options, 12) else 2


@xdp
def summed(context: XdpContext) -> int:
    """Adds the numbers an iterator of the kernel counts through."""
    iterator = Iterator()
    kernel_function("bpf_rcu_read_lock")
    kernel_function("bpf_rcu_read_unlock")
    kernel_function("bpf_iter_num_new", iterator, 3, 8)
    total = 0
    for _ in range(10):
        item = cast(Item, kernel_function("bpf_iter_num_next", iterator))
        if item is None:
            break
        total += item.number
    kernel_function("bpf_iter_num_destroy", iterator)
    sums[0] = total
    return XDP_PASS
