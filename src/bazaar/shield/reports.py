"""What a shield tells of itself: counters, blocks, where it stands."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from bazaar.bpf.maps import Map
from bazaar.shield import tables

REASONS = {
    tables.BLOCKED: "blocked",
    tables.RATE: "rate",
    tables.UNSERVED: "unserved",
    tables.FRAGMENT: "fragment",
    tables.ICMP: "icmp",
    tables.SYN: "syn",
    tables.STRAY: "stray",
    tables.STRANGER: "stranger",
    tables.MALFORMED: "malformed",
    tables.MANUAL: "manual",
}


@dataclass(frozen=True, slots=True)
class Attached:
    """An interface the door stands at; ``mode`` is native, or generic where the driver has no
    XDP: that works everywhere, at a lower speed."""

    interface: str
    namespace: str | None
    mode: str


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets since the shield was first attached, by what became of them."""

    passed: int
    allowed: int  # of the passed: by the allow list
    dropped: dict[str, int]  # by reason
    would_drop: dict[str, int]  # by reason, in dry-run
    blocks: int  # sources the door blocked

    @property
    def total_dropped(self) -> int:
        return sum(self.dropped.values())

    @property
    def total_would_drop(self) -> int:
        return sum(self.would_drop.values())


@dataclass(frozen=True, slots=True)
class Blocked:
    """A source or network that is shut out."""

    source: str
    reason: str  # why it was blocked
    since: float  # seconds ago
    left: float  # seconds until it may come again


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened since the last tick."""

    passed: float  # packets a second
    dropped: float
    would_drop: float
    new: tuple[Blocked, ...] = field(default=())
    expired: int = 0


def counters(table: Map) -> Counters:
    """All counters, summed over the CPUs."""
    sums = [0] * tables.COUNTERS
    for key, values in table.items_per_cpu():
        sums[struct.unpack("=I", key)[0]] = sum(struct.unpack("=Q", value)[0] for value in values)
    kinds = [kind for kind in REASONS if kind != tables.MANUAL]
    would = {REASONS[kind]: sums[tables.WOULD + kind] for kind in kinds}
    return Counters(
        passed=sums[tables.PASSED] + sums[tables.ALLOWED] + sum(would.values()),
        allowed=sums[tables.ALLOWED],
        dropped={REASONS[kind]: sums[kind] for kind in kinds},
        would_drop=would,
        blocks=sums[tables.BLOCKS],
    )


def blocked(source: str, value: bytes, now: int) -> Blocked:
    """A block from the map's bytes; ``now`` in nanoseconds of the monotonic clock."""
    block = tables.Block.decode(value)
    reason = REASONS.get(block.reason, "unknown")
    return Blocked(source, reason, (now - block.since) / 1e9, (block.until - now) / 1e9)
