"""Structs: C's layout, encoding and decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.bpf.python import (
    Ethernet,
    IPv4,
    IPv6,
    Struct,
    Tcp,
    Udp,
    bytes6,
    i16,
    u8,
    u16be,
    u32,
    u64,
)
from bazaar.bpf.python.types import struct_type
from bazaar.errors import UsageError


class Inner(Struct):
    small: u8
    wide: u32


class Outer(Struct):
    first: u8
    inner: Inner
    port: u16be
    big: u64
    mac: bytes6
    negative: i16


class Packed(Struct, packed=True):
    first: u8
    wide: u64


@pytest.mark.parametrize(
    ("made", "size"), [(Ethernet, 14), (IPv4, 20), (IPv6, 40), (Tcp, 20), (Udp, 8), (Packed, 9)]
)
def test_sizes(made, size) -> None:
    assert struct_type(made).size == size


def test_layout_is_c() -> None:
    layout = struct_type(Outer)
    assert [field.offset for field in layout.fields.values()] == [0, 4, 12, 16, 24, 30]
    assert (layout.size, layout.align) == (32, 8)


@given(
    st.integers(0, 255), st.integers(0, 65535), st.binary(min_size=6, max_size=6),
    st.integers(-(1 << 15), (1 << 15) - 1),
)  # fmt: skip
def test_round_trip(first, port, mac, negative) -> None:
    value = Outer(first=first, inner=Inner(wide=7), port=port, mac=mac, negative=negative)
    data = value.encode()
    assert data[12:14] == port.to_bytes(2, "big")
    assert Outer.decode(data) == value


def test_wrong_values_are_refused() -> None:
    with pytest.raises(UsageError, match="no field 'x'"):
        Inner(x=1)
    with pytest.raises(UsageError, match="does not fit"):
        Inner(small=256).encode()
    with pytest.raises(UsageError, match="not 3"):
        Inner.decode(b"123")
