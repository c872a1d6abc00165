"""What this kernel can do, found out by trying: never by its version.

Each probe makes the smallest thing that needs the feature, throws it away, and remembers the
answer for this process. A probe that may not even try (no privilege) says no.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from functools import cache

from bazaar.bpf import asm, links, maps, programs, syscall
from bazaar.bpf.asm import Instruction
from bazaar.bpf.maps import MapFlag, MapSpec, MapType
from bazaar.bpf.opcodes import Jump
from bazaar.bpf.programs import AttachType, Program, ProgramSpec, ProgramType
from bazaar.bpf.syscall import Command
from bazaar.errors import BazaarError

_RETURN_0 = (asm.mov64_imm(asm.R0, 0), asm.exit_())


def _load(
    kind: ProgramType,
    instructions: tuple[Instruction, ...] = _RETURN_0,
    *,
    attach: int = 0,
    target: int = 0,
) -> Program:
    return programs.load(
        ProgramSpec(
            "bz_probe", kind, instructions, expected_attach_type=attach, attach_btf_id=target
        )
    )


def _loads(
    kind: ProgramType, instructions: tuple[Instruction, ...] = _RETURN_0, *, attach: int = 0
) -> bool:
    try:
        _load(kind, instructions, attach=attach).close()
    except BazaarError:
        return False
    return True


def _creates(spec: MapSpec) -> bool:
    try:
        maps.create(spec).close()
    except BazaarError:
        return False
    return True


@cache
def have_bpf() -> bool:
    """bpf(2) is there and we may use it."""
    return _creates(MapSpec("bz_probe", MapType.ARRAY, 4, 4, 1))


@cache
def have_kernel_btf() -> bool:
    """The kernel describes its types in /sys/kernel/btf/vmlinux."""
    return os.access("/sys/kernel/btf/vmlinux", os.R_OK)


@cache
def have_ring_buffer() -> bool:
    """Maps of type RINGBUF (else perf buffers)."""
    return _creates(MapSpec("bz_probe", MapType.RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE")))


@cache
def have_mmapable_arrays() -> bool:
    """Arrays that can be mapped into memory."""
    return _creates(MapSpec("bz_probe", MapType.ARRAY, 4, 8, 1, MapFlag.MMAPABLE))


@cache
def have_batch_operations() -> bool:
    """Reading a hash many entries at a time (without it, maps are read one by one)."""
    try:
        with maps.create(MapSpec("bz_probe", MapType.HASH, 4, 4, 1)) as probe:
            place = syscall.buffer(8)
            at = syscall.address(place)
            request = struct.pack("<QQQQIIQQ", 0, at, at, at, 1, probe.fd, 0, 0)
            return syscall.call(Command.MAP_LOOKUP_BATCH, bytearray(request)) in {0, -2}
    except BazaarError:
        return False


@cache
def have_bounded_loops() -> bool:
    """Loops the verifier can see the end of."""
    loop = (
        asm.mov64_imm(asm.R0, 10),
        asm.alu64_imm(asm.Alu.SUB, asm.R0, 1).labelled("again"),
        asm.jump_imm(Jump.JNE, asm.R0, 0, "again"),
        asm.exit_(),
    )
    return _loads(ProgramType.SOCKET_FILTER, loop)


@cache
def have_instruction_set_4() -> bool:
    """Signed division, sign-extending loads and moves, byte swaps, 32-bit jumps."""
    code = (
        asm.mov64_imm(asm.R0, -7),
        asm.signed_imm(asm.Alu.DIV, asm.R0, 7),
        asm.mov64_imm(asm.R0, 0),
        asm.exit_(),
    )
    return _loads(ProgramType.SOCKET_FILTER, code)


@cache
def have_atomic_fetch() -> bool:
    """Atomic exchange and fetching arithmetic (instruction set version 3)."""
    code = (
        asm.store_imm(asm.Size.DW, asm.FP, -8, 0),
        asm.mov64_imm(asm.R0, 0),
        asm.atomic(asm.Atomic.XCHG, asm.Size.DW, asm.FP, -8, asm.R0),
        asm.mov64_imm(asm.R0, 0),
        asm.exit_(),
    )
    return _loads(ProgramType.SOCKET_FILTER, code)


@cache
def have_tp_btf() -> bool:
    """Programs on raw tracepoints whose arguments have the kernel's types."""
    try:
        target = links.tp_btf_target("sched_switch")
        kind, attach = ProgramType.TRACING, AttachType.TRACE_RAW_TP
        with _load(kind, attach=attach, target=target) as program, links.tp_btf(program):
            return True
    except BazaarError:
        return False


@cache
def have_fentry() -> bool:
    """Programs on the entry of kernel functions (needs the kernel's trampolines)."""
    from bazaar.bpf import btf

    kind, attach = ProgramType.TRACING, AttachType.TRACE_FENTRY
    # Two that nearly every kernel has; the first is there to be probed.
    for name in ("bpf_fentry_test1", "do_nanosleep"):
        try:
            target = btf.kernel().find(name, btf.Kind.FUNC)
            with _load(kind, attach=attach, target=target) as program, links.tp_btf(program):
                return True
        except BazaarError:
            continue
    return False


@cache
def have_kprobes() -> bool:
    """Probes on any instruction of the kernel."""
    return os.path.exists("/sys/bus/event_source/devices/kprobe/type")


@cache
def have_uprobes() -> bool:
    """Probes on instructions of programs and libraries."""
    return os.path.exists("/sys/bus/event_source/devices/uprobe/type")


@cache
def have_tracepoints() -> bool:
    """Tracepoints by tracefs, which is mounted if it is not."""
    from bazaar.bpf import perf

    try:
        perf.tracepoint("sched", "sched_switch").close()
    except BazaarError:
        return False
    return True


@cache
def have_perf_links() -> bool:
    """Links on perf events and tracepoints: such can be pinned, others end with their process."""
    try:
        with _load(ProgramType.PERF_EVENT) as program, links.interval(program, 10**9) as found:
            return found.links[0].info().type == "perf_event"
    except BazaarError:
        return False


@cache
def have_xdp_generic() -> bool:
    """XDP in the kernel's receive path, as links; tried on the loopback interface."""
    try:
        code = (asm.mov64_imm(asm.R0, 2), asm.exit_())
        with (
            _load(ProgramType.XDP, code) as program,
            links.xdp(program, 1, links.XdpMode.GENERIC),
        ):
            return True
    except BazaarError as error:
        # Somebody else's program is on the loopback interface: so it is possible.
        return getattr(error, "errno", 0) == errno.EBUSY


def have_xdp_native(ifindex: int) -> bool:
    """XDP in the driver of an interface of this network namespace; not remembered.

    A program that passes everything is put on and taken off again. An interface that has one
    already counts as able.
    """
    try:
        code = (asm.mov64_imm(asm.R0, 2), asm.exit_())
        with _load(ProgramType.XDP, code) as program, links.xdp(program, ifindex):
            return True
    except BazaarError as error:
        return getattr(error, "errno", 0) == errno.EBUSY


@cache
def have_xdp_live_frames() -> bool:
    """Sending frames by BPF_PROG_RUN: the packet generator's way."""
    try:
        # XDP_DROP: nothing leaves.
        code = (asm.mov64_imm(asm.R0, 1), asm.exit_())
        with _load(ProgramType.XDP, code) as program:
            program.run_live(b"\0" * 64, 1, 2)
    except BazaarError:
        return False
    return True


@cache
def have_tcx() -> bool:
    """tcx links on an interface's traffic; tried on the loopback interface."""
    try:
        # TCX_NEXT: go on as if the program were not there.
        code = (asm.mov64_imm(asm.R0, -1), asm.exit_())
        with _load(ProgramType.SCHED_CLS, code) as program, links.tcx(program, 1):
            return True
    except BazaarError:
        return False


@cache
def have_cgroup_programs() -> bool:
    """Programs on cgroup v2 directories."""
    code = (asm.mov64_imm(asm.R0, 1), asm.exit_())
    return _loads(ProgramType.CGROUP_SKB, code, attach=AttachType.CGROUP_INET_EGRESS)


@cache
def have_cgroup_v2() -> bool:
    """A cgroup v2 hierarchy is mounted, beside v1 controllers or alone."""
    from bazaar.bpf import filesystems

    return bool(filesystems.mounted("cgroup2"))


@cache
def have_statistics() -> bool:
    """Counting programs' runs and time by a descriptor (BPF_ENABLE_STATS)."""
    try:
        programs.statistics().close()
    except BazaarError:
        return False
    return True


ALL: tuple[Callable[[], bool], ...] = (
    have_bpf, have_kernel_btf, have_ring_buffer, have_mmapable_arrays, have_batch_operations,
    have_bounded_loops, have_instruction_set_4, have_atomic_fetch, have_tracepoints,
    have_tp_btf, have_fentry, have_kprobes, have_uprobes, have_perf_links, have_xdp_generic,
    have_xdp_live_frames, have_tcx, have_cgroup_programs, have_cgroup_v2,
    have_statistics,
)  # fmt: skip


def report() -> dict[str, bool]:
    """Every probe's answer by the probe's name without ``have_``."""
    return {probe.__name__.removeprefix("have_"): probe() for probe in ALL}
