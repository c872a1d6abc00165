"""The XDP program at the front door, in Python; `bazaar.bpf.python` compiles it.

For each packet, in this order: who sent it (an IPv4 address, an IPv6 /64)? Is the source
allowed: pass. Blocked: drop. Does somebody vouch for the packet (a served port, a known
connection)? If nobody does, it takes from a budget that all such packets share. And every
source has a bucket of its own. Who keeps sending beyond that is blocked, here and at once.

In-kernel state is all in maps that outlive the program and whoever loaded it; user space
(`guard`) only sets them, reads them and sweeps out what has expired.
"""

from __future__ import annotations

from typing import cast

from bazaar.bpf.python import (
    ETH_IPV4,
    ETH_IPV6,
    ETH_QINQ,
    ETH_VLAN,
    IP_FRAGMENT,
    IP_ICMP,
    IP_ICMPV6,
    IP_MORE_FRAGMENTS,
    IP_TCP,
    IP_UDP,
    TCP_ACK,
    TCP_SYN,
    XDP_DROP,
    XDP_PASS,
    Ethernet,
    IPv4,
    Tcp,
    Vlan,
    XdpContext,
    function,
    get_prandom_u32,
    helper,
    jiffies64,
    ktime_get_coarse_ns,
    packet,
    xdp,
)  # fmt: skip
from bazaar.shield.headers import (
    Extension,
    IPv6Addresses,
    IPv6Header,
    Ports,
    Socket,
    Tuple4,
    Tuple6,
)
from bazaar.shield.tables import (
    ALLOWED,
    BLOCKED,
    BLOCKS,
    DRY_RUN,
    FRAGMENT,
    HAS_ALLOWED,
    HAS_BLOCKED,
    HAS_NETWORKS,
    ICMP,
    MALFORMED,
    OFF,
    PASSED,
    PORTS,
    RATE,
    SAMPLE,
    STRANGER,
    STRAY,
    SYN,
    TICK_BITS,
    UNSERVED,
    WOULD,
    Block,
    Prefix,
    Source,
    State,
    Suspect,
    allowed,
    blocked,
    budgets,
    counters,
    networks,
    served,
    settings,
    sources,
    suspects,
)  # fmt: skip

EXTENSIONS = 4  # IPv6 extension headers looked through
VOUCHED_NS = 30_000_000_000  # how long a source is trusted after a connection of it was seen
_LISTEN, _NEW_SYN_RECV = 10, 12  # net/tcp_states.h


@function
def passed(counter: int) -> int:
    """Let the packet in."""
    counters[counter] += 1
    return XDP_PASS


@function
def drop(mode: int, reason: int) -> int:
    """Keep the packet out, or say that it would have been."""
    if mode == DRY_RUN:
        counters[reason + WOULD] += 1
        return XDP_PASS
    counters[reason] += 1
    return XDP_DROP


@function
def is_served(bit: int) -> int:
    """Whether anybody listens there: TCP's ports come first, then UDP's."""
    word = served.lookup(bit >> 6)
    return (word >> (bit & 63)) & 1 if word is not None else 0


@function
def affordable(reason: int) -> int:
    """Take one packet from a shared budget; 0 when it is used up."""
    budget = budgets.lookup(reason)
    if budget is None:
        return 1
    # Most of a flood ends here. The kernel's ticks are read by one instruction, a clock in
    # nanoseconds would be a quarter of all it costs to drop a packet.
    now = jiffies64() << TICK_BITS
    start = max(budget.next, now)
    # Who comes too late writes nothing: under a flood the CPUs only read this.
    if start - now > budget.depth:
        return 0
    budget.next = start + budget.gap
    return 1


@function
def is_sampled(mode: int, reason: int) -> int:
    """True for one of SAMPLE packets over a budget, by chance; the chance costs little."""
    seen = counters.lookup(reason + WOULD if mode == DRY_RUN else reason)
    if seen is not None and seen & (SAMPLE // 4 - 1) == 0:
        return 1 if get_prandom_u32() & 3 == 0 else 0
    return 0


@function
def charge(source: Source, packets: int, reason: int) -> None:
    """Put packets beyond what it may send on a source's account; block it when that is a flood."""
    now = ktime_get_coarse_ns()
    suspect = suspects.lookup(source)
    if suspect is None:
        suspects.update(source, Suspect(since=now, packets=packets))
    elif now - suspect.since > settings.current.window:
        suspect.since = now
        suspect.packets = packets
    else:
        suspect.packets += packets
        if suspect.packets > settings.current.excess:
            suspect.packets = 0
            until = now + settings.current.block
            if blocked.update(source, Block(until=until, since=now, reason=reason)) == 0:
                counters[BLOCKS] += 1
                settings.current.lists |= HAS_BLOCKED


@function
def is_vouched(source: Source) -> int:
    """Whether a connection of the source was seen lately."""
    state = sources.lookup(source)
    if state is None or state.vouched == 0:
        return 0
    return 1 if ktime_get_coarse_ns() - state.vouched < VOUCHED_NS else 0


@function
def is_connected(context: XdpContext, kind: int, internet: int, transport: int) -> int:
    """Whether the kernel has a connection this TCP segment belongs to."""
    tcp = packet(context, Tcp, transport)
    if tcp is None:
        return 0
    found = 0
    if kind == ETH_IPV4:
        ip = packet(context, IPv4, internet)
        if ip is None:
            return 0
        four = Tuple4(
            source=ip.source,
            destination=ip.destination,
            source_port=tcp.source,
            destination_port=tcp.destination,
        )
        found = helper("sk_lookup_tcp", context, four, 12, -1, 0)
    else:
        wide = packet(context, IPv6Addresses, internet)
        if wide is None:
            return 0
        six = Tuple6(
            source=wide.source,
            destination=wide.destination,
            source_port=tcp.source,
            destination_port=tcp.destination,
        )
        found = helper("sk_lookup_tcp", context, six, 36, -1, 0)
    if found == 0:
        return 0
    state = cast(Socket, found).state
    helper("sk_release", found)
    return 1 if state not in (_LISTEN, _NEW_SYN_RECV) else 0


@xdp
def door(context: XdpContext) -> int:  # noqa: PLR0911, PLR0912, PLR0915 - one packet's way
    """The verdict on one packet."""
    mode = settings.current.mode
    if mode == OFF:
        return XDP_PASS
    ethernet = packet(context, Ethernet)
    if ethernet is None:
        return XDP_PASS
    kind = ethernet.kind
    offset = 14
    for _ in range(2):
        if kind in (ETH_VLAN, ETH_QINQ):
            tag = packet(context, Vlan, offset)
            if tag is None:
                return drop(mode, MALFORMED)
            kind = tag.kind
            offset += 4
    internet = offset
    source = Source()
    protocol = 0
    fragment = 0
    if kind == ETH_IPV4:
        ip = packet(context, IPv4, offset)
        if ip is None:
            return drop(mode, MALFORMED)
        words = ip.version & 15
        if ip.version >> 4 != 4 or words < 5:
            return drop(mode, MALFORMED)
        source.third = 0xFFFF
        source.fourth = ip.source
        protocol = ip.protocol
        fragment = ip.fragment & (IP_FRAGMENT | IP_MORE_FRAGMENTS)
        offset += words * 4
    elif kind == ETH_IPV6:
        wide = packet(context, IPv6Header, offset)
        if wide is None:
            return drop(mode, MALFORMED)
        if wide.version >> 28 != 6:
            return drop(mode, MALFORMED)
        source.first = wide.first
        source.second = wide.second
        if wide.first & 0xFFC00000 == 0xFE800000:
            source.third = wide.third
            source.fourth = wide.fourth
        protocol = wide.next_header
        hops = wide.hop_limit
        offset += 40
        for _ in range(EXTENSIONS):
            # Hop-by-hop options, routing, fragment, destination options (RFC 8200).
            if protocol not in (0, 43, 44, 60):
                break
            extension = packet(context, Extension, offset)
            if extension is None:
                return drop(mode, MALFORMED)
            if protocol == 44:
                fragment = 1
                break
            protocol = extension.next_header
            offset += (extension.length + 1) * 8
        # Neighbours find one another by ICMPv6 that no router passed on (RFC 4861).
        if protocol == IP_ICMPV6 and hops == 255:
            icmp = packet(context, Extension, offset)
            if icmp is not None and 133 <= icmp.next_header <= 137:
                return passed(PASSED)
    else:
        return passed(PASSED)

    lists = settings.current.lists
    if lists & (HAS_ALLOWED | HAS_NETWORKS):
        prefix = Prefix(
            bits=128,
            first=source.first,
            second=source.second,
            third=source.third,
            fourth=source.fourth,
        )
        if lists & HAS_ALLOWED and prefix in allowed:
            return passed(ALLOWED)
        if lists & HAS_NETWORKS:
            network = networks.lookup(prefix)
            if network is not None and ktime_get_coarse_ns() < network.until:
                return drop(mode, BLOCKED)
    if lists & HAS_BLOCKED:
        shut = blocked.lookup(source)
        if shut is not None and ktime_get_coarse_ns() < shut.until:
            return drop(mode, BLOCKED)

    # Who answers for the packet? `reason` is the budget it is charged to if nobody does.
    reason = UNSERVED
    vouched = 0
    if fragment != 0:
        reason = FRAGMENT
    elif protocol == IP_TCP:
        tcp = packet(context, Tcp, offset)
        if tcp is None:
            return drop(mode, MALFORMED)
        if tcp.flags & (TCP_SYN | TCP_ACK) != TCP_SYN:
            reason = STRAY
            vouched = is_vouched(source)
            if vouched == 0 and is_connected(context, kind, internet, offset):
                vouched = 1
                now = ktime_get_coarse_ns()
                state = sources.lookup(source)
                if state is None:
                    sources.update(source, State(next=now, vouched=now))
                else:
                    state.vouched = now
        elif is_served(tcp.destination):
            reason = SYN
            vouched = is_vouched(source)
    elif protocol == IP_UDP:
        ports = packet(context, Ports, offset)
        if ports is None:
            return drop(mode, MALFORMED)
        if is_served(PORTS + ports.destination):
            reason = STRANGER
            vouched = 1 if source in sources else 0
    elif protocol in (IP_ICMP, IP_ICMPV6):
        reason = ICMP
    if vouched == 0 and affordable(reason) == 0:
        # Few of them are charged, each for many: most of a flood costs no account. A source
        # with connections is not: anybody could send in its name to have it blocked.
        if is_sampled(mode, reason) and is_vouched(source) == 0:
            charge(source, SAMPLE, reason)
        return drop(mode, reason)

    now = ktime_get_coarse_ns()
    gap = settings.current.gap
    state = sources.lookup(source)
    if state is None:
        sources.update(source, State(next=now + gap))
        return passed(PASSED)
    start = max(state.next, now)
    if start - now > settings.current.depth:
        charge(source, 1, RATE)
        return drop(mode, RATE)
    state.next = start + gap
    return passed(PASSED)
