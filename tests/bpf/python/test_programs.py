"""XDP and tc programs in Python on real packets through the kernel."""

from __future__ import annotations

import struct

import pytest

from bazaar.bpf.python import XDP_DROP, XDP_PASS

from . import samples
from .samples import Counter

ETHERNET = bytes(12)


def ipv4(protocol: int, payload: bytes, *, options: int = 0, source: str = "10.0.0.1") -> bytes:
    address = bytes(int(part) for part in source.split("."))
    head = bytes([0x45 + options, 0]) + struct.pack(">HHHBBH", 0, 0, 0, 64, protocol, 0)
    return head + address + bytes([10, 0, 0, 2]) + bytes(4 * options) + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return head + bytes(range(16)) + bytes(16) + payload


def tcp(port: int, flags: int = 0x10) -> bytes:
    return struct.pack(">HHIIBBHHH", 1234, port, 1, 2, 0x50, flags, 100, 0, 0)


def udp(port: int) -> bytes:
    return struct.pack(">HHHH", 1234, port, 8, 0)


def frame(payload: bytes, kind: int, vlans: int = 0) -> bytes:
    tags = b"".join(struct.pack(">HH", 0x8100, 7) for _ in range(vlans))
    return ETHERNET + tags + struct.pack(">H", kind) + payload


def total(loaded, index: int) -> int:
    values = loaded.maps["counters"].lookup_per_cpu(struct.pack("<I", index))
    return sum(struct.unpack("<Q", value)[0] for value in values)


@pytest.mark.parametrize("vlans", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "payload", "counter", "port"),
    [
        (0x0800, ipv4(6, tcp(80)), Counter.TCP, 80),
        (0x0800, ipv4(6, tcp(443, 0x02), options=3), Counter.SYN, 443),
        (0x0800, ipv4(17, udp(53), options=10), Counter.UDP, 53),
        (0x86DD, ipv6(6, tcp(8080)), Counter.TCP, 8080),
        (0x86DD, ipv6(17, udp(65535)), Counter.UDP, 65535),
        (0x0800, ipv4(1, bytes(8)), Counter.OTHER, None),
        (0x0806, bytes(28), Counter.OTHER, None),
        (0x0800, ipv4(6, tcp(80))[:39], Counter.SHORT, None),
        (0x0800, ipv4(6, b"")[:19], Counter.SHORT, None),
        (0x86DD, ipv6(17, b"1234567"), Counter.SHORT, None),
    ],
)
def test_headers_are_found(loaded, vlans, kind, payload, counter, port) -> None:
    program = loaded(samples.classify)
    assert program.run(frame(payload, kind, vlans)).value == XDP_PASS
    assert {index: total(program, index) for index in range(8) if total(program, index)} == {
        counter: 1
    }
    expected = [] if port is None else [(struct.pack("<H", port), struct.pack("<Q", 1))]
    assert list(program.maps["ports"].items()) == expected
    if kind == 0x86DD:
        assert program.maps["sources6"].lookup(bytes(range(16))) == struct.pack("<Q", 1)


def test_three_vlan_tags_are_too_many(loaded) -> None:
    program = loaded(samples.classify)
    program.run(frame(ipv4(6, tcp(80)), 0x0800, vlans=3))
    assert total(program, Counter.OTHER) == 1


def test_token_bucket(loaded) -> None:
    program = loaded(samples.limit)
    rule = samples.Settings(rate=1, burst=5)
    program.maps["settings"].update(struct.pack("<I", 0), rule.encode())
    data = frame(ipv4(17, udp(53)), 0x0800)
    assert [program.run(data).value for _ in range(7)] == [XDP_PASS] * 5 + [XDP_DROP] * 2
    assert (total(program, Counter.PASSED), total(program, Counter.BLOCKED)) == (5, 2)
    value = program.maps["buckets"].lookup(bytes([10, 0, 0, 1]))
    assert samples.Bucket.decode(value).tokens == 0
    other = frame(ipv4(17, udp(53), source="10.0.0.9"), 0x0800)
    assert program.run(other).value == XDP_PASS

    prefix = samples.Prefix(length=24, address=0x0A000000)
    program.maps["allowed"].update(prefix.encode(), struct.pack("<I", 1))
    assert program.run(data).value == XDP_PASS
    program.maps["allowed"].delete(prefix.encode())
    assert program.run(data).value == XDP_DROP
    rule = samples.Settings(rate=1, burst=5, dry_run=1)
    program.maps["settings"].update(struct.pack("<I", 0), rule.encode())
    assert program.run(data).value == XDP_PASS


def test_events_reach_user_space(loaded) -> None:
    from bazaar.bpf.ring_buffer import RingBuffer

    program = loaded(samples.limit)
    with RingBuffer(program.maps["events"]) as ring:
        data = frame(ipv4(17, udp(53)), 0x0800)
        for _ in range(2):
            program.run(data)
        program.maps["settings"].update(struct.pack("<I", 0), samples.Settings(burst=1).encode())
        for _ in range(3):
            program.run(frame(ipv4(17, udp(53), source="10.1.1.1"), 0x0800))
        events = [samples.Event.decode(event) for event in ring]
    assert [event.source for event in events][-2:] == [0x0A010101] * 2
    assert events[-1].size == len(data)


def test_maps_in_programs(loaded) -> None:
    program = loaded(samples.maps)
    zero = struct.pack("<I", 0)
    program.maps["settings"].update(zero, samples.Settings(rate=32).encode())
    program.run(bytes(14))
    values = [
        struct.unpack("<Q", program.maps["numbers"].lookup(struct.pack("<I", index)))[0]
        for index in range(4)
    ]
    assert values == [611, 1, 1, 4]
    assert list(program.maps["ports"].items()) == []
    found = samples.Settings.decode(program.maps["settings"].lookup(zero))
    assert (found.rate, found.burst) == (42, 42)


def test_tc_program(loaded) -> None:
    program = loaded(samples.skb)
    assert program.run(bytes(64)).value == 0
    assert program.run(bytes(200)).value == 2


def test_maps_and_instructions_are_listed() -> None:
    assert [spec.name for spec in samples.classify.maps] == ["counters", "ports", "sources6"] or {
        spec.name for spec in samples.classify.maps
    } == {"counters", "ports", "sources6"}
    assert all(item.line is None or item.line.file for item in samples.classify.instructions)
    lines = {item.line.text for item in samples.limit.instructions if item.line}
    assert "bucket.tokens = tokens - 1" in lines
