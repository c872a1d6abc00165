"""What the door reads of packets, and what it asks the kernel's sockets with."""

from __future__ import annotations

from typing import Annotated

from bazaar.bpf.python import Items, Struct, u8, u16be, u32, u32be, u64


class IPv6Header(Struct):
    """RFC 8200, the addresses in words."""

    version: u32be
    length: u16be
    next_header: u8
    hop_limit: u8
    first: u32be
    second: u32be
    third: u32be
    fourth: u32be
    destination: Annotated[bytes, Items(u8, 16)]


class IPv6Addresses(Struct):
    """The same header, for copying the addresses."""

    before: u64
    source: Annotated[bytes, Items(u8, 16)]
    destination: Annotated[bytes, Items(u8, 16)]


class Tuple4(Struct):
    """``struct bpf_sock_tuple`` for IPv4."""

    source: u32be
    destination: u32be
    source_port: u16be
    destination_port: u16be


class Tuple6(Struct):
    """``struct bpf_sock_tuple`` for IPv6; the addresses as they stand in the packet."""

    source: Annotated[bytes, Items(u8, 16)]
    destination: Annotated[bytes, Items(u8, 16)]
    source_port: u16be
    destination_port: u16be


class Socket(Struct):
    """The part of ``struct bpf_sock`` up to the TCP state."""

    before: Annotated[bytes, Items(u8, 72)]
    state: u32


class Extension(Struct):
    """What IPv6 extension headers begin with (RFC 6564); ``offset`` is the fragment header's."""

    next_header: u8
    length: u8
    offset: u16be


class Ports(Struct):
    """What TCP and UDP begin with."""

    source: u16be
    destination: u16be
