"""Programs the tests compile, load and run."""

from __future__ import annotations

from enum import IntEnum

from bazaar.bpf.python import (
    ETH_IPV4,
    ETH_IPV6,
    ETH_QINQ,
    ETH_VLAN,
    IP_TCP,
    IP_UDP,
    TCP_SYN,
    XDP_DROP,
    XDP_PASS,
    Array,
    Ethernet,
    HashMap,
    IPv4,
    IPv6,
    LpmTrie,
    LruHashMap,
    PerCpuArray,
    RingBuffer,
    SkBuff,
    Struct,
    Tcp,
    Udp,
    Variable,
    Vlan,
    XdpContext,
    atomic_add,
    bytes16,
    function,
    get_smp_processor_id,
    i64,
    ktime_get_ns,
    packet,
    packet_length,
    tcx,
    truncate,
    u8,
    u16,
    u32,
    u32be,
    u64,
    xdp,
)

NANOSECONDS = 1_000_000_000


class Counter(IntEnum):
    """Slots of the counters."""

    OTHER = 0
    TCP = 1
    UDP = 2
    SYN = 3
    SHORT = 4
    BLOCKED = 5
    PASSED = 6


class Address(Struct):
    """An IPv6 address, or an IPv4 one in its last four bytes."""

    bytes: bytes16


class Bucket(Struct):
    """A token bucket."""

    tokens: u64
    seen: u64


class Prefix(Struct):
    """Key of the allow list."""

    length: u32
    address: u32be


class Event(Struct):
    """What goes to user space."""

    source: u32be
    size: u32
    cpu: u32


class Settings(Struct):
    """Read by the programs, written by user space."""

    rate: u64
    burst: u64
    dry_run: u8


counters = PerCpuArray("counters", value=u64, max_entries=8)
ports = HashMap("ports", key=u16, value=u64, max_entries=1024)
sources6 = LruHashMap("sources6", key=Address, value=u64, max_entries=64)
buckets = LruHashMap("buckets", key=u32be, value=Bucket, max_entries=1024)
allowed = LpmTrie("allowed", key=Prefix, value=u32, max_entries=16)
settings = Variable("settings", Settings)
events = RingBuffer("events", size=4096)
numbers = Array("numbers", value=u64, max_entries=4)


@function
def network_offset(context: XdpContext, kind: int) -> int:
    """Where the header after all VLAN tags begins, in the upper half; its type in the lower."""
    offset = 14
    for _ in range(2):
        if kind not in (ETH_VLAN, ETH_QINQ):
            break
        vlan = packet(context, Vlan, offset)
        if vlan is None:
            return 0
        kind = vlan.kind
        offset += 4
    return offset << 16 | kind


@function
def count_transport(context: XdpContext, protocol: int, offset: int) -> int:
    """Count by protocol and port."""
    if protocol == IP_TCP:
        tcp = packet(context, Tcp, offset)
        if tcp is None:
            return Counter.SHORT
        ports[tcp.destination] += 1
        return Counter.SYN if tcp.flags & TCP_SYN else Counter.TCP
    if protocol == IP_UDP:
        udp = packet(context, Udp, offset)
        if udp is None:
            return Counter.SHORT
        ports[udp.destination] += 1
        return Counter.UDP
    return Counter.OTHER


@xdp
def classify(context: XdpContext) -> int:
    """Ethernet, VLAN, IPv4 with options, IPv6, TCP and UDP."""
    ethernet = packet(context, Ethernet)
    if ethernet is None:
        counters[Counter.SHORT] += 1
        return XDP_PASS
    found = network_offset(context, ethernet.kind)
    offset = found >> 16
    kind = found & 0xFFFF
    what = Counter.OTHER + 0
    if kind == ETH_IPV4:
        ip = packet(context, IPv4, offset)
        if ip is None:
            what = Counter.SHORT
        else:
            what = count_transport(context, ip.protocol, offset + (ip.version & 15) * 4)
    elif kind == ETH_IPV6:
        ip6 = packet(context, IPv6, offset)
        if ip6 is None:
            what = Counter.SHORT
        else:
            key = Address(bytes=ip6.source)
            sources6[key] += 1
            what = count_transport(context, ip6.next_header, offset + 40)
    elif found == 0:
        what = Counter.SHORT
    counters[what] += 1
    return XDP_PASS


@function
def allow(address: int) -> bool:
    """Whether the address is on the allow list."""
    return allowed.lookup(Prefix(length=32, address=address)) is not None


@xdp
def limit(context: XdpContext) -> int:
    """A token bucket for each source."""
    ethernet = packet(context, Ethernet)
    if ethernet is None or ethernet.kind != ETH_IPV4:
        return XDP_PASS
    ip = packet(context, IPv4, 14)
    if ip is None or allow(ip.source):
        return XDP_PASS
    rate = settings.current.rate
    burst = settings.current.burst
    now = ktime_get_ns()
    bucket = buckets.lookup(ip.source)
    if bucket is None:
        buckets.update(ip.source, Bucket(tokens=burst - 1, seen=now))
        counters[Counter.PASSED] += 1
        return XDP_PASS
    earned = (now - bucket.seen) * rate // NANOSECONDS
    tokens = min(bucket.tokens + earned, burst)
    if earned:
        bucket.seen = now
    if tokens == 0:
        bucket.tokens = 0
        counters[Counter.BLOCKED] += 1
        event = events.reserve(Event)
        if event is not None:
            event.source = ip.source
            event.size = packet_length(context)
            event.cpu = get_smp_processor_id()
            events.submit(event)
        return XDP_PASS if settings.current.dry_run else XDP_DROP
    bucket.tokens = tokens - 1
    counters[Counter.PASSED] += 1
    return XDP_PASS


@xdp
def maps(context: XdpContext) -> int:
    """Each thing one can do with a map; the answers go into `numbers`."""
    ports[80] = 5
    ports[80] += 2
    ports[80] -= 1
    answer = ports[80] * 100
    if 80 in ports:
        answer += 10
    if 81 not in ports:
        answer += 1
    numbers[0] = answer
    del ports[80]
    numbers[1] = 1 if ports.lookup(80) is None else 2
    first: i64 = ports.update(90, 1, 1)
    again: i64 = ports.update(90, 1, 1)
    numbers[2] = 1 if first == 0 and again < 0 else 0
    ports.delete(90)
    numbers[3] |= 4
    value = settings.current
    atomic_add(value.rate, 10)
    value.burst = truncate(value.rate + (1 << 32), u32)
    return XDP_PASS


@tcx
def skb(context: SkBuff) -> int:
    """A tc program: marks what is long."""
    if packet_length(context) > 100:
        context.mark = 7
        return 2
    return 0
