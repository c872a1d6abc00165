"""How the door names a source: 16 bytes, the way IPv6 writes them.

IPv4 addresses are mapped (``::ffff:192.0.2.1``). Of an IPv6 source only its /64 counts, for
whoever has one address of it has all of them; link-local sources all share fe80::/64, so
there the whole address counts. `door` does the same in the kernel.
"""

from __future__ import annotations

import ipaddress
import struct

from bazaar.errors import UsageError

KEY_SIZE = 16
_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def key(address: str) -> bytes:
    """The key of the source ``address`` belongs to. Raises UsageError for what is no address."""
    try:
        found = ipaddress.ip_address(address.partition("/")[0])
    except ValueError:
        raise UsageError(
            f"'{address}' is no IP address", hint="an IPv4 or IPv6 address, such as 192.0.2.7"
        ) from None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if isinstance(found, ipaddress.IPv4Address):
        return _MAPPED + found.packed
    return found.packed if found in _LINK_LOCAL else found.packed[:8] + bytes(8)


def text(source: bytes) -> str:
    """A source's key as people write it: 192.0.2.7, 2001:db8::/64, fe80::1."""
    if source[:12] == _MAPPED:
        return str(ipaddress.IPv4Address(source[12:]))
    address = ipaddress.IPv6Address(source)
    return str(address) if address in _LINK_LOCAL else f"{address}/64"


def network(text: str) -> Network:
    """An address or network from its text. Raises UsageError that says what would do."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise UsageError(
            f"'{text}' is no IP address or network", hint="such as 192.0.2.7 or 10.0.0.0/8"
        ) from None


def prefix(asked: Network) -> bytes:
    """A network as a key of the kernel's prefix tries: bits in the machine's order, 16 bytes.

    Sources of IPv6 are known by their /64, so a longer prefix is cut to that.
    """
    if isinstance(asked, ipaddress.IPv4Network):
        return struct.pack("=I", 96 + asked.prefixlen) + _MAPPED + asked.network_address.packed
    if asked.prefixlen > 64 and asked.network_address not in _LINK_LOCAL:
        asked = asked.supernet(new_prefix=64)
    return struct.pack("=I", asked.prefixlen) + asked.network_address.packed


def unprefix(raw: bytes) -> str:
    """The text of a prefix trie's key."""
    (bits,) = struct.unpack_from("=I", raw)
    if raw[4:16] == _MAPPED and bits >= 96:
        return str(ipaddress.IPv4Network((raw[16:20], bits - 96)))
    return str(ipaddress.IPv6Network((raw[4:20], bits)))
