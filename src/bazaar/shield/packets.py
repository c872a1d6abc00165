"""Frames for the generator and the tests: headers packed by hand, checksums right."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from bazaar.errors import UsageError

TCP, UDP, ICMP = 6, 17, 1
IPV4, IPV6, VLAN, QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8
SYN, RST, ACK = 0x02, 0x04, 0x10
_ETHERNET = 14


@dataclass(frozen=True, slots=True)
class Template:
    """A frame whose source varies: 16 bits of it at ``vary``, 0 in ``frame``.

    ``checksums`` are (offset, the sum of everything else that the checksum covers): adding
    the varied bits, folding and inverting gives the checksum.
    """

    frame: bytes
    vary: int
    checksums: tuple[tuple[int, int], ...]

    def filled(self, number: int) -> bytes:
        """The frame of one source."""
        frame = bytearray(self.frame)
        struct.pack_into(">H", frame, self.vary, number)
        for offset, partial in self.checksums:
            struct.pack_into(">H", frame, offset, fold(partial + number) ^ 0xFFFF)
        return bytes(frame)


def total(data: bytes) -> int:
    """The sum of 16-bit words, as Internet checksums add them (RFC 1071), not yet folded."""
    padded = data + bytes(len(data) % 2)
    return sum(struct.unpack(f">{len(padded) // 2}H", padded))


def fold(value: int) -> int:
    """Carry around until 16 bits are left."""
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def template(
    protocol: str,
    sources: str,
    destination: str,
    *,
    port: int = 9,
    destination_mac: bytes = b"\xff" * 6,
    source_mac: bytes = b"\x02\0\0\0\0\x01",
    size: int = 64,
) -> Template:
    """A ``udp`` or ``syn`` (TCP) frame of at least ``size`` bytes, from the network ``sources``.

    IPv4 varies the last 16 bits of a /16, IPv6 the bits before the /64 of a /48.
    """
    network = ipaddress.ip_network(sources)
    target = ipaddress.ip_address(destination)
    wide = network.version == 6
    if network.version != target.version or network.prefixlen != (48 if wide else 16):
        raise UsageError(
            f"a flood from {sources} to {destination} is not possible",
            hint="sources are an IPv4 /16 or an IPv6 /48, the destination is of the same kind",
        )
    if protocol not in {"udp", "syn"}:
        raise UsageError(f"'{protocol}' is no kind of flood", hint="udp or syn")
    header = _ETHERNET + (40 if wide else 20)
    space = max(size - header, 20 if protocol == "syn" else 8)
    number = TCP if protocol == "syn" else UDP
    addresses = network.network_address.packed + target.packed
    payload = bytes(space - (20 if protocol == "syn" else 8))
    body = tcp(40_000, port, payload=payload) if number == TCP else udp(40_000, port, payload)
    # Over IPv4 a UDP checksum of 0 means none; everywhere else it must be right.
    checked = number == TCP or wide
    partial = total(addresses) + number + len(body) + total(body)
    ethernet = destination_mac + source_mac + struct.pack(">H", IPV6 if wide else IPV4)
    place = header + (16 if number == TCP else 6)
    checksums = [(place, partial)] if checked else []
    if wide:
        internet = struct.pack(">IHBB", 6 << 28, len(body), number, 64) + addresses
        return Template(ethernet + internet + body, _ETHERNET + 8 + 6, tuple(checksums))
    internet = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, number, 0) + addresses
    checksums.append((_ETHERNET + 10, total(internet)))
    return Template(ethernet + internet + body, _ETHERNET + 12 + 2, tuple(checksums))


def udp(source_port: int, port: int, payload: bytes = b"") -> bytes:
    """A UDP datagram with checksum 0."""
    return struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload


def tcp(source_port: int, port: int, *, flags: int = SYN, payload: bytes = b"") -> bytes:
    """A TCP segment without options, its checksum left 0."""
    return struct.pack(">HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 64_240, 0, 0) + payload


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    body: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet; ``fragment`` is the field of flags and offset (0x2000: more follow)."""
    words = 5 + len(options) // 4
    start = struct.pack(
        ">BBHHHBB", 0x40 | words, 0, words * 4 + len(body), 0, fragment, 64, protocol
    )
    end = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed + options
    check = fold(total(start) + total(end)) ^ 0xFFFF
    return start + struct.pack(">H", check) + end + body


def ipv6(source: str, destination: str, protocol: int, body: bytes, *, hops: int = 64) -> bytes:
    """An IPv6 packet; extension headers go in front of ``body``, ``protocol`` names the first."""
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed
    return struct.pack(">IHBB", 6 << 28, len(body), protocol, hops) + addresses + body


def ethernet(
    payload: bytes,
    kind: int = IPV4,
    *,
    vlans: tuple[int, ...] = (),
    destination: bytes = b"\x02\0\0\0\0\x02",
    source: bytes = b"\x02\0\0\0\0\x01",
) -> bytes:
    """A frame; ``vlans`` are tags from the outermost inwards."""
    outer = (QINQ, VLAN) if len(vlans) > 1 else (VLAN,)
    tags = b"".join(
        struct.pack(">HH", outer[min(place, len(outer) - 1)], tag)
        for place, tag in enumerate(vlans)
    )
    return destination + source + tags + struct.pack(">H", kind) + payload
