"""What the door keeps in maps: their keys and values, and the numbers both sides agree on.

The program (`door`) reads and writes them in the kernel, `guard` from outside.
"""

from __future__ import annotations

from bazaar.bpf.python import (
    Array,
    HashMap,
    LpmTrie,
    LruHashMap,
    PerCpuArray,
    Struct,
    Variable,
    u32,
    u32be,
    u64,
)

# Why a packet went its way: the index of its counter. What dry-run would have dropped is
# counted at WOULD + the reason.
PASSED, ALLOWED, BLOCKED, RATE, UNSERVED, FRAGMENT, ICMP, SYN, STRAY, STRANGER, MALFORMED = range(
    11
)
MANUAL = 11  # never counted: a person blocked the source
BLOCKS = 12  # how many sources the door blocked
WOULD = 16
COUNTERS = 32

# Which lists hold anything, so that empty ones cost no lookup.
HAS_ALLOWED, HAS_NETWORKS, HAS_BLOCKED = 1, 2, 4

OFF, DRY_RUN, ON = 0, 1, 2
SAMPLE = 64  # of packets over a budget one in so many is charged to its source, so many times


PORTS = 65_536
TICK_BITS = 16  # a tick of the kernel has so many bits of fraction in a budget
SOURCES = 65_536
BLOCKED_SOURCES = 65_536


class Settings(Struct):
    """How the door works now; times in nanoseconds."""

    mode: u32
    lists: u32
    gap: u64  # between packets of a source at its rate
    depth: u64  # how far ahead of its rate a source may be
    block: u64  # how long a flooding source is shut out
    window: u64  # over which the excess of a source is counted
    excess: u64  # packets beyond its rate in a window that make it a flood


class Budget(Struct):
    """Packets that all sources share; the generic cell rate algorithm, in parts of a tick."""

    gap: u64
    depth: u64
    next: u64  # when the budget would be full again


class Source(Struct):
    """Who sent a packet, as 16 bytes (see `addresses`)."""

    first: u32be
    second: u32be
    third: u32be
    fourth: u32be


class Prefix(Struct):
    """A network; ``bits`` of what follows count."""

    bits: u32
    first: u32be
    second: u32be
    third: u32be
    fourth: u32be


class State(Struct):
    """What is known of a source."""

    next: u64  # when its bucket would be full again
    vouched: u64  # when a connection of it was last seen in the kernel's own table


class Suspect(Struct):
    """Packets of a source beyond what it may send, in a window."""

    since: u64
    packets: u64


class Block(Struct):
    """A source that is shut out; times are of the monotonic clock."""

    until: u64
    since: u64
    reason: u32
    unused: u32


settings = Variable("settings", Settings)
budgets = Array("budgets", value=Budget, max_entries=WOULD)
allowed = LpmTrie("allowed", key=Prefix, value=u32, max_entries=16_384)
networks = LpmTrie("networks", key=Prefix, value=Block, max_entries=16_384)
blocked = HashMap("blocked", key=Source, value=Block, max_entries=BLOCKED_SOURCES)
sources = LruHashMap("sources", key=Source, value=State, max_entries=SOURCES)
suspects = LruHashMap("suspects", key=Source, value=Suspect, max_entries=SOURCES)
served = Array("served", value=u64, max_entries=2 * PORTS // 64)  # a bit a port
counters = PerCpuArray("counters", value=u64, max_entries=COUNTERS)

MAPS = (settings, budgets, allowed, networks, blocked, sources, suspects, served, counters)
