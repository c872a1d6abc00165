"""The door's verdicts on single packets, by BPF_PROG_RUN of the loaded program."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bazaar.shield import headers, tables
from bazaar.shield import packets as p
from bazaar.shield.guard import Guard
from bazaar.shield.settings import Budgets

DROP, PASS = 1, 2
HERE, HERE6 = "10.0.0.1", "2001:db8::1"
WIDE = Budgets(*[1_000_000] * 6)


def verdict(guard: Guard, frame: bytes, repeat: int = 1) -> int:
    return guard.pinned.program.run(frame, repeat=repeat).value


def counted(guard: Guard) -> dict[str, int]:
    """Counters that are not 0."""
    found = guard.counters()
    named = {"passed": found.passed, "allowed": found.allowed, **found.dropped}
    would = {f"would {reason}": count for reason, count in found.would_drop.items()}
    return {name: count for name, count in {**named, **would}.items() if count}


def v4(body: bytes, protocol: int = p.UDP, **more: object) -> bytes:
    source = str(more.pop("source", "192.0.2.7"))
    return p.ipv4(source, HERE, protocol, body, **more)  # type: ignore[arg-type]


def v6(body: bytes, protocol: int = p.UDP, **more: object) -> bytes:
    source = str(more.pop("source", "2001:db8:7::9"))
    return p.ipv6(source, HERE6, protocol, body, **more)  # type: ignore[arg-type]


def extension(following: int, words: int = 0, data: bytes = bytes(6)) -> bytes:
    return bytes([following, words]) + data + bytes(words * 8)


DNS, OTHER = p.udp(1234, 53, b"x" * 20), p.udp(1234, 9, b"x" * 20)
SYN, ACK = p.tcp(1234, 80), p.tcp(1234, 80, flags=p.ACK)

# With no budget left for anything, what nobody answers for is dropped for a reason we can read.
VERDICTS: list[tuple[str, bytes, str]] = [
    ("ARP", p.ethernet(bytes(46), 0x0806), "passed"),
    ("no IP", p.ethernet(bytes(46), 0x88CC), "passed"),
    ("datagram to nobody", p.ethernet(v4(OTHER)), "unserved"),
    ("datagram to a served port", p.ethernet(v4(DNS)), "stranger"),
    ("served, but by the other protocol", p.ethernet(v4(p.udp(1, 80))), "unserved"),
    ("new connection", p.ethernet(v4(SYN, p.TCP)), "syn"),
    ("new connection to nobody", p.ethernet(v4(p.tcp(1, 81), p.TCP)), "unserved"),
    ("segment of no connection", p.ethernet(v4(ACK, p.TCP)), "stray"),
    ("answer to a SYN", p.ethernet(v4(p.tcp(80, 9, flags=p.SYN | p.ACK), p.TCP)), "stray"),
    ("ping", p.ethernet(v4(bytes(16), p.ICMP)), "icmp"),
    ("unknown protocol", p.ethernet(v4(bytes(16), 132)), "unserved"),
    ("options", p.ethernet(v4(DNS, options=bytes([1] * 40))), "stranger"),
    ("first fragment", p.ethernet(v4(DNS, fragment=0x2000)), "fragment"),
    ("later fragment", p.ethernet(v4(b"x" * 8, fragment=185)), "fragment"),
    ("don't fragment", p.ethernet(v4(DNS, fragment=0x4000)), "stranger"),
    ("one VLAN", p.ethernet(v4(DNS), vlans=(7,)), "stranger"),
    ("two VLANs", p.ethernet(v4(SYN, p.TCP), vlans=(7, 8)), "syn"),
    ("VLAN cut short", p.ethernet(b"", vlans=(7,))[:16], "malformed"),
    ("no IPv4 header", p.ethernet(v4(DNS)[:19]), "malformed"),
    ("header length 4", p.ethernet(b"\x44" + v4(DNS)[1:]), "malformed"),
    ("version 5", p.ethernet(b"\x55" + v4(DNS)[1:]), "malformed"),
    ("options beyond the end", p.ethernet(b"\x4f" + v4(DNS)[1:30]), "malformed"),
    ("UDP cut short", p.ethernet(v4(DNS)[:22]), "malformed"),
    ("TCP cut short", p.ethernet(v4(SYN, p.TCP)[:39]), "malformed"),
    ("IPv6 datagram", p.ethernet(v6(OTHER), p.IPV6), "unserved"),
    ("IPv6 served", p.ethernet(v6(DNS), p.IPV6), "stranger"),
    ("IPv6 new connection", p.ethernet(v6(SYN, p.TCP), p.IPV6), "syn"),
    ("IPv6 segment", p.ethernet(v6(ACK, p.TCP), p.IPV6), "stray"),
    ("IPv6 ping", p.ethernet(v6(bytes([128, 0]) + bytes(6), 58), p.IPV6), "icmp"),
    ("neighbour", p.ethernet(v6(bytes([135, 0]) + bytes(22), 58, hops=255), p.IPV6), "passed"),
    ("neighbour from afar", p.ethernet(v6(bytes([135]) + bytes(23), 58), p.IPV6), "icmp"),
    ("extensions", p.ethernet(v6(extension(60) + extension(17, 1) + DNS, 0), p.IPV6), "stranger"),
    ("IPv6 fragment", p.ethernet(v6(extension(17) + DNS, 44), p.IPV6), "fragment"),
    ("IPv6 many extensions", p.ethernet(v6(extension(60) * 5 + DNS, 60), p.IPV6), "unserved"),
    ("IPv6 in VLAN", p.ethernet(v6(DNS), p.IPV6, vlans=(7,)), "stranger"),
    ("no IPv6 header", p.ethernet(v6(DNS)[:39], p.IPV6), "malformed"),
    ("IPv6 by name only", p.ethernet(v4(DNS + bytes(40)), p.IPV6), "malformed"),
    ("extension beyond the end", p.ethernet(v6(extension(17, 200)[:8], 0), p.IPV6), "malformed"),
]  # fmt: skip


def test_every_kind_of_packet_is_told_apart(make: Callable[..., Guard]) -> None:
    guard = make()
    for kind in range(tables.WOULD):
        spent = tables.Budget(gap=1, depth=1, next=1 << 62)  # for the next hundred years
        guard.pinned.maps["budgets"].update(struct.pack("=I", kind), spent.encode())
    for number, (label, frame, expected) in enumerate(VERDICTS):
        # A source of its own for each, for a known one is treated better.
        guard.pinned.maps["sources"].delete_batch(list(guard.pinned.maps["sources"].keys()))
        before = guard.counters()
        assert verdict(guard, frame) == (PASS if expected == "passed" else DROP), label
        after = guard.counters()
        if expected == "passed":
            assert after.passed == before.passed + 1, (number, label)
        else:
            assert after.dropped[expected] == before.dropped[expected] + 1, (number, label)


@pytest.mark.parametrize(("label", "frame", "reason"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_what_is_well_formed_passes_while_there_is_room(
    make: Callable[..., Guard], label: str, frame: bytes, reason: str
) -> None:
    guard = make(budgets=WIDE)
    assert verdict(guard, frame) == (DROP if reason == "malformed" else PASS), label


def test_a_budget_is_shared_by_all_sources_and_felt_only_beyond_it(
    make: Callable[..., Guard],
) -> None:
    guard = make(budgets=Budgets(unserved=100))
    for number in range(300):
        verdict(guard, p.ethernet(v4(OTHER, source=f"198.18.{number % 100}.{number % 250}")))
    found = counted(guard)
    assert 100 <= found["passed"] <= 120
    assert found["passed"] + found["unserved"] == 300
    assert guard.blocked() == []


def test_a_source_beyond_its_rate_is_dropped_then_blocked_and_others_are_not(
    make: Callable[..., Guard],
) -> None:
    guard = make(rate=1000, burst=200, budgets=WIDE)
    mine, other = v4(DNS, source="192.0.2.1"), v4(DNS, source="192.0.2.2")
    verdict(guard, p.ethernet(mine), 5000)
    found = counted(guard)
    assert 200 <= found["passed"] < 400
    assert found["rate"] >= 500  # as much again as it may send in half a second
    assert found["blocked"] > 3000
    assert [(item.source, item.reason) for item in guard.blocked()] == [("192.0.2.1", "rate")]
    assert guard.counters().blocks == 1
    assert verdict(guard, p.ethernet(other)) == PASS
    assert verdict(guard, p.ethernet(mine)) == DROP


def test_a_source_at_its_rate_is_never_dropped(make: Callable[..., Guard]) -> None:
    guard = make(rate=500, budgets=WIDE)
    frame = p.ethernet(v4(DNS))
    began = time.monotonic()
    sent = 0
    while time.monotonic() - began < 1.5:
        verdict(guard, frame)
        sent += 1
        time.sleep(1 / 450)
    assert counted(guard) == {"passed": sent}


def test_a_flood_to_nobody_is_blocked_by_its_source_though_few_packets_are_charged(
    make: Callable[..., Guard],
) -> None:
    guard = make()
    verdict(guard, p.ethernet(v4(OTHER)), 200_000)
    assert [(item.source, item.reason) for item in guard.blocked()] == [("192.0.2.7", "unserved")]
    assert counted(guard)["blocked"] > 0


def test_ipv6_sources_are_known_by_their_64(make: Callable[..., Guard]) -> None:
    guard = make(rate=1000, burst=100, budgets=WIDE)
    for number in range(2000):
        verdict(guard, p.ethernet(v6(DNS, source=f"2001:db8:1:2::{number:x}"), p.IPV6))
    assert [item.source for item in guard.blocked()] == ["2001:db8:1:2::/64"]
    assert verdict(guard, p.ethernet(v6(DNS, source="2001:db8:1:3::1"), p.IPV6)) == PASS


def test_neighbours_on_the_link_are_told_apart(make: Callable[..., Guard]) -> None:
    guard = make(budgets=WIDE)
    guard.block("fe80::1")
    assert verdict(guard, p.ethernet(v6(DNS, source="fe80::1"), p.IPV6)) == DROP
    assert verdict(guard, p.ethernet(v6(DNS, source="fe80::2"), p.IPV6)) == PASS


def test_blocks_hold_until_they_expire_or_are_taken_back(make: Callable[..., Guard]) -> None:
    guard = make(budgets=WIDE)
    frame = p.ethernet(v4(DNS))
    guard.block("192.0.2.7", 0.5)
    assert verdict(guard, frame) == DROP
    (block,) = guard.blocked()
    assert (block.source, block.reason) == ("192.0.2.7", "manual")
    assert 0 < block.left <= 0.5
    time.sleep(0.55)
    assert verdict(guard, frame) == PASS
    assert guard.blocked() == []
    assert guard.tick().expired == 1
    guard.block("192.0.2.7")
    assert verdict(guard, frame) == DROP
    assert guard.unblock("192.0.2.7")
    assert not guard.unblock("192.0.2.7")
    assert verdict(guard, frame) == PASS


def test_networks_are_blocked_and_expire_too(make: Callable[..., Guard]) -> None:
    guard = make(budgets=WIDE)
    guard.block("192.0.2.0/24", 0.5)
    assert verdict(guard, p.ethernet(v4(DNS))) == DROP
    assert verdict(guard, p.ethernet(v4(DNS, source="192.0.3.7"))) == PASS
    assert [item.source for item in guard.blocked()] == ["192.0.2.0/24"]
    time.sleep(0.55)
    guard.tick()
    assert verdict(guard, p.ethernet(v4(DNS))) == PASS
    assert list(guard.pinned.maps["networks"].keys()) == []


def test_the_allow_list_is_checked_first(make: Callable[..., Guard]) -> None:
    guard = make(rate=10, burst=1, allow=("192.0.2.0/28", "2001:db8:7::/48"))
    guard.block("192.0.2.7")
    guard.block("192.0.2.0/24")
    for frame, kind in ((v4(OTHER), p.IPV4), (v6(OTHER), p.IPV6)):
        assert verdict(guard, p.ethernet(frame, kind), 5000) == PASS
    assert counted(guard) == {"passed": 10_000, "allowed": 10_000}
    assert guard.allowed() == ["192.0.2.0/28", "2001:db8:7::/48"]
    guard.allow("198.51.100.1")
    assert verdict(guard, p.ethernet(v4(OTHER, source="198.51.100.1")), 5000) == PASS
    assert guard.disallow("198.51.100.1")
    assert guard.disallow("192.0.2.0/28")
    assert verdict(guard, p.ethernet(v4(OTHER))) == DROP


def test_dry_run_counts_and_drops_nothing(make: Callable[..., Guard]) -> None:
    guard = make(rate=1000, burst=100, mode="dry-run", budgets=WIDE)
    frame = p.ethernet(v4(DNS))
    assert verdict(guard, frame, 3000) == PASS
    found = counted(guard)
    assert found["passed"] == 3000
    assert found["would rate"] > 100
    assert found["would blocked"] > 1000
    assert guard.counters().total_dropped == 0
    assert [item.source for item in guard.blocked()] == ["192.0.2.7"]


def test_modes_and_rates_change_without_loading_anything_again(
    make: Callable[..., Guard],
) -> None:
    guard = make(budgets=WIDE)
    number = guard.pinned.program.id
    frame = p.ethernet(v4(DNS))
    guard.block("192.0.2.7")
    assert verdict(guard, frame) == DROP
    guard.set_mode("off")
    assert (guard.mode, verdict(guard, frame)) == ("off", PASS)
    assert counted(guard) == {"blocked": 1}
    guard.set_mode("dry-run")
    assert verdict(guard, frame) == PASS
    guard.set_mode("on")
    assert verdict(guard, frame) == DROP
    guard.unblock("192.0.2.7")
    guard.serve([("udp", 9)])
    guard.change(rate=1, burst=1)
    assert verdict(guard, p.ethernet(v4(OTHER)), 1000) == DROP
    assert guard.pinned.program.id == number


def test_served_ports_are_bits_of_their_own(make: Callable[..., Guard]) -> None:
    guard = make(budgets=Budgets(unserved=1, strangers=1_000_000, syn=1_000_000))
    verdict(guard, p.ethernet(v4(OTHER, source="203.0.113.9")), 50)
    for port in (1, 63, 64, 1023, 65_535):
        guard.serve([("udp", port)])
        for asked in (1, 2, 62, 63, 64, 65, 1023, 65_535):
            got = verdict(guard, p.ethernet(v4(p.udp(9, asked))))
            assert got == (PASS if asked == port else DROP), (port, asked)
            syn = p.ethernet(v4(p.tcp(9, asked), p.TCP))
            assert verdict(guard, syn) == DROP


# --- hostile packets ---


@pytest.fixture
def open_door(make: Callable[..., Guard]) -> Guard:
    """Everybody is allowed: whatever is dropped is no packet at all."""
    return make(allow=("0.0.0.0/0", "::/0"))


VALID = [frame for _, frame, reason in VERDICTS if reason != "malformed"]


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(frame=st.binary(min_size=14, max_size=200))
@example(frame=bytes(14))
def test_random_bytes_get_a_sane_verdict(open_door: Guard, frame: bytes) -> None:
    assert verdict(open_door, frame) in {DROP, PASS}


@settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    frame=st.sampled_from(VALID),
    cut=st.integers(14, 200),
    at=st.integers(12, 80),
    value=st.integers(0, 255),
)
def test_packets_that_are_damaged_get_a_sane_verdict(
    open_door: Guard, frame: bytes, cut: int, at: int, value: int
) -> None:
    damaged = bytearray(frame)
    if at < len(damaged):
        damaged[at] = value
    before = open_door.counters()
    got = verdict(open_door, bytes(damaged[:cut]).ljust(14, b"\0"))
    after = open_door.counters()
    malformed = after.dropped["malformed"] - before.dropped["malformed"]
    assert (got == DROP) == (malformed == 1)
    assert after.total_dropped - before.total_dropped == malformed


@pytest.mark.parametrize("frame", VALID, ids=range(len(VALID)))
def test_packets_cut_at_any_byte_are_no_error(open_door: Guard, frame: bytes) -> None:
    for length in range(14, len(frame) + 1):
        assert verdict(open_door, frame[:length]) in {DROP, PASS}
    assert verdict(open_door, frame) == PASS


def test_the_structs_of_the_kernel_are_laid_out_as_in_the_kernel() -> None:
    from bazaar.bpf.python.types import struct_type

    assert struct_type(headers.Tuple4).size == 12
    assert struct_type(headers.Tuple6).size == 36
    assert struct_type(headers.Socket).fields["state"].offset == 72  # struct bpf_sock
    assert struct_type(tables.Prefix).size == struct.calcsize("=I16s")
