"""Packet headers and their numbers, as the RFCs name them."""

from __future__ import annotations

from bazaar.bpf.python.types import Struct, bytes6, bytes16, u8, u16be, u32be

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_VLAN = 0x8100
ETH_IPV6 = 0x86DD
ETH_QINQ = 0x88A8

IP_ICMP = 1
IP_TCP = 6
IP_UDP = 17
IP_ICMPV6 = 58
IP_FRAGMENT = 0x1FFF
IP_MORE_FRAGMENTS = 0x2000

TCP_FIN = 0x01
TCP_SYN = 0x02
TCP_RST = 0x04
TCP_PSH = 0x08
TCP_ACK = 0x10


class Ethernet(Struct):
    """14 bytes; ``kind`` is the EtherType."""

    destination: bytes6
    source: bytes6
    kind: u16be


class Vlan(Struct):
    """The 4 bytes after an EtherType of 0x8100 or 0x88a8 (IEEE 802.1Q)."""

    control: u16be
    kind: u16be


class IPv4(Struct):
    """RFC 791, without options; the header's length is ``(version & 15) * 4``."""

    version: u8
    service: u8
    length: u16be
    identification: u16be
    fragment: u16be
    ttl: u8
    protocol: u8
    checksum: u16be
    source: u32be
    destination: u32be


class IPv6(Struct):
    """RFC 8200, the fixed header."""

    version: u32be
    length: u16be
    next_header: u8
    hop_limit: u8
    source: bytes16
    destination: bytes16


class Tcp(Struct):
    """RFC 9293, without options; the header's length is ``(offset >> 4) * 4``."""

    source: u16be
    destination: u16be
    sequence: u32be
    acknowledgment: u32be
    offset: u8
    flags: u8
    window: u16be
    checksum: u16be
    urgent: u16be


class Udp(Struct):
    """RFC 768."""

    source: u16be
    destination: u16be
    length: u16be
    checksum: u16be


class Icmp(Struct):
    """RFC 792 and 4443, the first 8 bytes."""

    kind: u8
    code: u8
    checksum: u16be
    rest: u32be
