"""BPF programs written in Python, compiled from their own source without LLVM.

    from bazaar.bpf.python import (
        ETH_IPV4, XDP_DROP, XDP_PASS, Ethernet, HashMap, IPv4, PerCpuArray, Struct, XdpContext,
        ktime_get_ns, packet, u32be, u64, xdp,
    )

    class Source(Struct):
        packets: u64
        seen: u64

    sources = HashMap("sources", key=u32be, value=Source, max_entries=65536)
    counters = PerCpuArray("counters", value=u64, max_entries=2)

    @xdp
    def door(context: XdpContext) -> int:
        ethernet = packet(context, Ethernet)
        if ethernet is None or ethernet.kind != ETH_IPV4:
            return XDP_PASS
        ip = packet(context, IPv4, 14)
        if ip is None:
            return XDP_PASS
        source = sources.lookup(ip.source)
        if source is None:
            sources.update(ip.source, Source(packets=1, seen=ktime_get_ns()))
            return XDP_PASS
        source.packets += 1
        counters[1] += 1
        return XDP_DROP if source.packets > 1000 else XDP_PASS

    maps = door.create_maps()
    program = door.load(maps)          # then bazaar.bpf.links.xdp(program, ifindex)

The language is a part of Python, with these meanings:

- **Integers** have 64 bits and wrap. Annotations give fields their width: `u8` to `u64`, `i8` to
  `i64`, `u16be` to `u64be` for the network's byte order (converted when read and written).
  A variable's first assignment, or its annotation (``x: i64 = 0``), decides its kind: unsigned
  unless the value is signed. As in C, an operation is signed when one side is signed and the
  other is not an unsigned 64-bit integer. `//` and `%` of signed integers round towards zero,
  `x // 0` is 0 and `x % 0` is x, shifts take the count modulo 64. What is constant is computed
  as Python does. ``truncate(x, u32)`` cuts to a width.
- **Structs** are classes with annotated fields (`Struct`), laid out as in C. ``State(a=1)`` makes
  one, zero elsewhere; in Python the same class encodes and decodes a map's bytes.
- **Packets**: ``packet(context, Header, offset)`` is a view of the header or None. `offset` may
  be computed: ``14 + (ip.version & 15) * 4``; the bounds check is made each time. An index or
  offset that is no constant needs a bound the verifier can see (`&`, `min`, an `if`).
- **Maps** are declared once at module level. ``m.lookup(k)`` is the value in place or None,
  ``m.update(k, v, flags)``, ``m.delete(k)``, ``k in m``, ``del m[k]``, ``m[k] = v``. ``m[k]`` of
  an integer is 0 where there is none. ``m[k] += v`` adds in place, atomically where CPUs share
  the value, and begins with 0; `state.field += 1` is not atomic, ``atomic_add(state.field, 1)``
  is. `Variable` is one value without a key.
- **Control**: `if`, `elif`, `else`, `and`, `or`, `not`, chained comparisons, `a if c else b`, `:=`,
  ``for i in range(…)`` (with a bound the verifier sees), `break`, `continue`, early `return`.
  No `while`, no recursion, no exceptions, no floats, no strings.
- **Functions** decorated with `@function` are compiled into the place of each call.
- **Helpers** of the kernel are functions here; any other is ``helper("name", …)``, a kfunc is
  ``kernel_function("name", …)``.
- **Constants** of the module, enums included, are taken over by value when it is compiled.

What cannot be compiled is a CompileError that names file, line and column.
"""

from bazaar.bpf.python.contexts import (
    TCX_DROP,
    TCX_NEXT,
    TCX_PASS,
    TCX_REDIRECT,
    XDP_ABORTED,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    XDP_TX,
    Context,
    RawTracepointContext,
    SkBuff,
    TracepointContext,
    XdpContext,
)
from bazaar.bpf.python.headers import (
    ETH_ARP,
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
    TCP_FIN,
    TCP_PSH,
    TCP_RST,
    TCP_SYN,
    Ethernet,
    Icmp,
    IPv4,
    IPv6,
    Tcp,
    Udp,
    Vlan,
)
from bazaar.bpf.python.kernel import (
    atomic_add,
    fill,
    get_current_cgroup_id,
    get_current_comm,
    get_current_pid_tgid,
    get_current_uid_gid,
    get_prandom_u32,
    get_smp_processor_id,
    helper,
    jiffies64,
    kernel_function,
    ktime_get_boot_ns,
    ktime_get_coarse_ns,
    ktime_get_ns,
    packet,
    packet_length,
    redirect,
    skb_cgroup_id,
    truncate,
    xdp_adjust_head,
    xdp_adjust_tail,
)
from bazaar.bpf.python.maps import (
    Array,
    HashMap,
    LpmTrie,
    LruHashMap,
    LruPerCpuHashMap,
    PerCpuArray,
    PerCpuHashMap,
    RingBuffer,
    Variable,
)
from bazaar.bpf.python.programs import (
    Compiled,
    cgroup_egress,
    cgroup_ingress,
    function,
    raw_tracepoint,
    tcx,
    tracepoint,
    xdp,
)
from bazaar.bpf.python.types import (
    Items,
    Struct,
    bytes4,
    bytes6,
    bytes8,
    bytes16,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u16be,
    u32,
    u32be,
    u64,
    u64be,
)

__all__ = [  # noqa: RUF022 - constants, classes, functions
    "ETH_ARP", "ETH_IPV4", "ETH_IPV6", "ETH_QINQ", "ETH_VLAN", "IP_FRAGMENT", "IP_ICMP",
    "IP_ICMPV6", "IP_MORE_FRAGMENTS", "IP_TCP", "IP_UDP", "TCP_ACK", "TCP_FIN", "TCP_PSH",
    "TCP_RST", "TCP_SYN", "TCX_DROP", "TCX_NEXT", "TCX_PASS", "TCX_REDIRECT", "XDP_ABORTED",
    "XDP_DROP", "XDP_PASS", "XDP_REDIRECT", "XDP_TX", "Array", "Compiled", "Context",
    "Ethernet", "HashMap", "IPv4", "IPv6", "Icmp", "Items", "LpmTrie", "LruHashMap",
    "LruPerCpuHashMap", "PerCpuArray", "PerCpuHashMap", "RawTracepointContext", "RingBuffer",
    "SkBuff", "Struct", "Tcp", "TracepointContext", "Udp", "Variable", "Vlan", "XdpContext",
    "atomic_add", "bytes16", "bytes4", "bytes6", "bytes8", "cgroup_egress", "cgroup_ingress",
    "fill", "function", "get_current_cgroup_id", "get_current_comm", "get_current_pid_tgid",
    "get_current_uid_gid", "get_prandom_u32", "get_smp_processor_id", "helper", "i16", "i32",
    "i64", "i8", "jiffies64", "kernel_function", "ktime_get_boot_ns", "ktime_get_coarse_ns",
    "ktime_get_ns", "packet", "packet_length", "raw_tracepoint", "redirect", "skb_cgroup_id",
    "truncate",
    "tcx", "tracepoint", "u16", "u16be", "u32", "u32be", "u64", "u64be", "u8", "xdp",
    "xdp_adjust_head", "xdp_adjust_tail",
]  # fmt: skip
