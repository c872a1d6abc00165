"""What programs are called with; the fields are those of linux/bpf.h the kernel lets them read."""

from __future__ import annotations

from typing import Annotated, ClassVar

from bazaar.bpf.python.types import Items, Struct, u32, u64

XDP_ABORTED = 0
XDP_DROP = 1
XDP_PASS = 2
XDP_TX = 3
XDP_REDIRECT = 4

TCX_NEXT = -1
TCX_PASS = 0
TCX_DROP = 2
TCX_REDIRECT = 7


class Context(Struct):
    """Base of the contexts; ``packet`` holds the offsets of data and data_end, if it has them."""

    packet: ClassVar[tuple[int, int] | None] = None


class XdpContext(Context):
    """``struct xdp_md``."""

    packet: ClassVar[tuple[int, int] | None] = (0, 4)
    data: u32
    data_end: u32
    data_meta: u32
    ingress_ifindex: u32
    rx_queue_index: u32
    egress_ifindex: u32


class SkBuff(Context):
    """``struct __sk_buff``, up to data_end."""

    packet: ClassVar[tuple[int, int] | None] = (76, 80)
    len: u32
    pkt_type: u32
    mark: u32
    queue_mapping: u32
    protocol: u32
    vlan_present: u32
    vlan_tci: u32
    vlan_proto: u32
    priority: u32
    ingress_ifindex: u32
    ifindex: u32
    tc_index: u32
    cb: Annotated[list[int], Items(u32, 5)]
    hash: u32
    tc_classid: u32
    data: u32
    data_end: u32


class TracepointContext(Context):
    """The 8 bytes every tracepoint's record begins with; subclass it with the fields of
    its `format` file. (They are the kernel's own and may not be read by a program.)"""

    common: u64


class RawTracepointContext(Context):
    """Arguments of a raw tracepoint."""

    arguments: Annotated[list[int], Items(u64, 12)]


__all__ = [
    "TCX_DROP", "TCX_NEXT", "TCX_PASS", "TCX_REDIRECT",
    "XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_REDIRECT", "XDP_TX",
    "Context", "RawTracepointContext", "SkBuff", "TracepointContext", "XdpContext",
]  # fmt: skip
