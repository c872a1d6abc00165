"""BPF programs: blueprint, loading with source lines, running, and what the kernel counts."""

from __future__ import annotations

import errno as errors
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bazaar.bpf import pins, syscall
from bazaar.bpf.asm import Instruction, assemble
from bazaar.bpf.map_types import object_name
from bazaar.bpf.program_types import (
    F_SLEEPABLE,
    F_XDP_HAS_FRAGS,
    RUN_LIVE_FRAMES,
    RUN_ON_CPU,
    AttachType,
    ProgramType,
)
from bazaar.bpf.syscall import Command, Descriptor, address, buffer
from bazaar.errors import KernelError, VerifierError
from bazaar.model.record import record

if TYPE_CHECKING:
    from bazaar.bpf.maps import Map

__all__ = [
    "F_SLEEPABLE", "F_XDP_HAS_FRAGS", "RUN_LIVE_FRAMES", "RUN_ON_CPU", "AttachType", "Program",
    "ProgramInfo", "ProgramSpec", "ProgramType", "RunResult", "from_fd", "load", "open_id",
    "open_pinned", "statistics",
]  # fmt: skip

_LOG_START = 1 << 16
_LOG_LIMIT = 1 << 26
# Where log_true_size stands in union bpf_attr.
_TRUE_SIZE = 140


@record
class ProgramSpec:
    """The blueprint of a program; ``instructions`` carry their source lines.

    ``attach_btf_id`` is the BTF id a TRACING program belongs to; for ``tp_btf`` that is the
    typedef ``btf_trace_<name>`` (``links.tp_btf_target`` finds it).
    """

    name: str
    type: ProgramType
    instructions: tuple[Instruction, ...]
    license: str = "GPL"
    expected_attach_type: int = 0
    attach_btf_id: int = 0
    flags: int = 0


@record
class RunResult:
    """What a test run gave: the return value, nanoseconds a run on average, the packet and the
    context as the program left them."""

    value: int
    duration_ns: int
    data: bytes = b""
    context: bytes = b""


@record
class ProgramInfo:
    """What the kernel says of a program; ``run_ns`` and ``runs`` count while statistics are on."""

    id: int
    type: int
    name: str
    tag: str
    run_ns: int
    runs: int
    missed: int
    verified_instructions: int
    translated_bytes: int
    compiled_bytes: int
    map_ids: tuple[int, ...] = ()


def load(spec: ProgramSpec, maps: Mapping[str, Map] | None = None) -> Program:
    """Load a program; its map references are resolved by name from ``maps``.

    VerifierError shows the user's line and a reason, with the whole log on ``.log``;
    KernelError when the kernel refuses without having verified.
    """
    code = assemble(
        spec.instructions,
        {name: item.fd for name, item in (maps or {}).items()},
        _kfunc_ids(spec),
    )
    return Program(_Loading(spec, code).load(), spec.name, spec.type)


def _kfunc_ids(spec: ProgramSpec) -> dict[str, int]:
    names = {item.kfunc for item in spec.instructions if item.kfunc and not item.imm}
    if not names:
        return {}
    from bazaar.bpf import btf

    types = btf.kernel()
    return {name: types.find(name, btf.Kind.FUNC) for name in names}


class _Loading:
    """One attempt after another to load the same code; keeps the memory the kernel reads."""

    def __init__(self, spec: ProgramSpec, code: bytes) -> None:
        self.spec = spec
        self.slots = len(code) // 8
        self.code = buffer(code)
        self.license = buffer(spec.license.encode() + b"\0")
        self.functions = self.lines = buffer(0)
        self.log_size = 0

    def load(self) -> int:
        types = self._types()
        try:
            fd = self._attempt(types)
            return fd if fd >= 0 else self._refused(types, -fd)
        finally:
            if types:
                types.close()

    def _types(self) -> Descriptor | None:
        """BTF with the source lines; None without lines or on a kernel without BTF."""
        if all(item.line is None for item in self.spec.instructions):
            return None
        from bazaar.bpf.btf_builder import ProgramTypes

        types = ProgramTypes(self.spec.name, self.spec.instructions)
        try:
            loaded = types.load()
        except KernelError:
            return None
        self.functions, self.lines = buffer(types.functions), buffer(types.lines)
        return loaded

    def _attempt(
        self, types: Descriptor | None, log: syscall.Buffer | None = None, level: int = 1
    ) -> int:
        spec = self.spec
        functions, lines = len(self.functions) // 8, len(self.lines) // 16
        # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version,
        # prog_flags, prog_name, prog_ifindex, expected_attach_type, prog_btf_fd, func_info
        # (record size, address, count), line_info (the same), attach_btf_id, attach_btf_obj_fd
        attributes = struct.pack(
            "<IIQQIIQII16sIIIIQIIQIIII",
            spec.type, self.slots, address(self.code), address(self.license),
            level if log else 0, len(log) if log else 0, address(log) if log else 0,
            0, spec.flags, object_name(spec.name), 0, spec.expected_attach_type,
            types.fd if types else 0, 8 if types else 0,
            address(self.functions) if types else 0, functions if types else 0,
            16 if types else 0, address(self.lines) if types else 0, lines if types else 0,
            spec.attach_btf_id, 0, 0,
        )  # fmt: skip
        request = bytearray(attributes.ljust(_TRUE_SIZE + 4, b"\0"))
        result = syscall.call(Command.PROG_LOAD, request)
        self.log_size = struct.unpack_from("<I", request, _TRUE_SIZE)[0]
        return result

    def _refused(self, types: Descriptor | None, code: int) -> int:
        """Once more with a log that grows until it holds everything, then the error."""
        size = _LOG_START
        while True:
            log = buffer(size)
            fd = self._attempt(types, log)
            if fd >= 0:
                return fd
            if fd != -errors.ENOSPC or size >= _LOG_LIMIT:
                break
            # Since Linux 6.4 the kernel tells how long the whole log is.
            size = min(max(self.log_size, size * 4), _LOG_LIMIT)
        text = log.raw.split(b"\0", 1)[0].decode(errors="replace")
        code = -fd if fd != -errors.ENOSPC else code
        raise _verifier_error(self.spec, text, code) or self._other(code)

    def _other(self, code: int) -> KernelError:
        kind = self.spec.type.name.lower()
        hint = None
        if code == errors.EINVAL:
            hint = f"this kernel has no programs of type {kind}, or not with this way of attaching"
        elif code == errors.E2BIG:
            hint = f"{self.slots} instructions are more than the kernel takes"
        return syscall.failure(code, f"cannot load program '{self.spec.name}' ({kind})", hint=hint)


def _verifier_error(spec: ProgramSpec, log: str, code: int) -> VerifierError | None:
    """The error for a log; None when the verifier never came to say anything."""
    from bazaar.bpf import verifier

    refusal = verifier.explain(log, spec.instructions)
    if not refusal.said:
        return None
    parts = [f"the kernel's verifier refused program '{spec.name}'"]
    line = refusal.line
    if line is not None:
        parts[0] += f" at {line.file}:{line.line}"
        if line.text.strip():
            parts.append(f"    {line.text.strip()}")
    elif refusal.slot >= 0:
        parts[0] += f" at instruction {refusal.slot}"
    parts.append(refusal.reason or refusal.said)
    if refusal.reason:
        parts.append(f"(the kernel: {refusal.said})")
    return VerifierError(
        "\n".join(parts),
        errno=code,
        log=log,
        file=line.file if line else "",
        line=line.line if line else 0,
        column=line.column if line else 0,
    )


class Program(Descriptor):
    """A loaded program; lives as long as a descriptor, a pin or a link holds it."""

    def __init__(self, fd: int, name: str, kind: ProgramType) -> None:
        super().__init__(fd)
        self.name = name
        self.type = kind

    def __repr__(self) -> str:
        return f"<Program {self.name} {self.type.name.lower()} fd {self._fd}>"

    @property
    def id(self) -> int:
        """The kernel's number for it, as bpftool shows."""
        return self.info().id

    def info(self) -> ProgramInfo:
        """What the kernel says of it."""
        raw = self._info(b"")
        count: int = struct.unpack_from("<I", raw, 52)[0]
        numbers: tuple[int, ...] = ()
        if count:
            place = buffer(4 * count)
            request = bytearray(64)
            struct.pack_into("<IQ", request, 52, count, address(place))
            self._info(bytes(request))
            numbers = struct.unpack(f"<{count}I", place.raw)
        run_ns, runs, missed, verified = struct.unpack_from("<QQQI", raw, 192)
        return ProgramInfo(
            id=struct.unpack_from("<I", raw, 4)[0],
            type=struct.unpack_from("<I", raw)[0],
            name=raw[64:80].split(b"\0")[0].decode(errors="replace"),
            tag=raw[8:16].hex(),
            run_ns=run_ns,
            runs=runs,
            missed=missed,
            verified_instructions=verified,
            compiled_bytes=struct.unpack_from("<I", raw, 16)[0],
            translated_bytes=struct.unpack_from("<I", raw, 20)[0],
            map_ids=numbers,
        )

    def translated(self) -> bytes:
        """The instructions as the verifier left them (``bpftool prog dump xlated``)."""
        size: int = struct.unpack_from("<I", self._info(b""), 20)[0]
        place = buffer(max(size, 8))
        request = bytearray(40)
        struct.pack_into("<I", request, 20, size)
        struct.pack_into("<Q", request, 32, address(place))
        self._info(bytes(request))
        return place.raw[:size]

    def _info(self, request: bytes) -> bytes:
        # struct bpf_prog_info has 232 bytes in 6.18; older kernels fill less.
        place = buffer(request.ljust(232, b"\0"))
        attributes = bytearray(struct.pack("<IIQ", self.fd, len(place), address(place)))
        what = f"cannot read what the kernel says of program '{self.name}'"
        syscall.bpf(Command.OBJ_GET_INFO_BY_FD, attributes, what)
        return place.raw

    def run(
        self,
        data: bytes = b"",
        context: bytes = b"",
        repeat: int = 1,
        flags: int = 0,
        *,
        batch_size: int = 0,
        cpu: int = 0,
    ) -> RunResult:
        """BPF_PROG_RUN: run it ``repeat`` times on a packet and a context, without attaching.

        With RUN_LIVE_FRAMES an XDP program's verdicts are carried out on real frames, in
        batches of ``batch_size`` (``run_live`` is the handier way). A signal interrupts the run;
        when its handler raises nothing, the whole run begins again.
        """
        live = bool(flags & RUN_LIVE_FRAMES)
        packet, given = buffer(data), buffer(context)
        # Programs may lengthen the packet; live frames give nothing back.
        output = buffer(len(data) + 512 if data and not live else 0)
        # Nor do raw tracepoints, which take their context as it is.
        mute = live or self.type == ProgramType.RAW_TRACEPOINT
        left = buffer(0 if mute else len(context))
        # prog_fd, retval, data sizes, addresses, repeat, duration, context sizes and
        # addresses, flags, cpu, batch_size
        attributes = bytearray(
            struct.pack(
                "<IIIIQQIIIIQQIIII",
                self.fd, 0, len(data), len(output), address(packet) if data else 0,
                address(output) if len(output) else 0, repeat if repeat > 1 else 0, 0,
                len(context), len(left), address(given) if context else 0,
                address(left) if len(left) else 0, flags, cpu, batch_size, 0,
            )
        )  # fmt: skip
        syscall.bpf(Command.PROG_TEST_RUN, attributes, f"cannot run program '{self.name}'")
        _, value, _, written, _, _, _, duration, _, context_written = struct.unpack_from(
            "<IIIIQQIIII", attributes
        )
        return RunResult(
            value, duration, output.raw[:written], left.raw[: min(context_written, len(left))]
        )

    def run_live(self, data: bytes, ifindex: int, repeat: int, batch_size: int = 64) -> RunResult:
        """Send ``repeat`` real frames through an XDP program as if they came in at an interface
        of the current network namespace."""
        context = struct.pack("<6I", 0, len(data), 0, ifindex, 0, 0)
        return self.run(data, context, repeat, RUN_LIVE_FRAMES, batch_size=batch_size)

    def pin(self, path: str) -> None:
        """Keep it alive under a path in bpffs after everybody closed it."""
        pins.pin(self.fd, path)


def from_fd(fd: int) -> Program:
    """A Program around a descriptor, described by the kernel; takes the descriptor over."""
    program = Program(fd, "", ProgramType.SOCKET_FILTER)
    info = program.info()
    program.name, program.type = info.name, ProgramType(info.type)
    return program


def open_pinned(path: str) -> Program:
    """The program pinned under a path, or KernelError."""
    return from_fd(pins.open_fd(path, "prog"))


def open_id(number: int) -> Program:
    """The program with the kernel's number, or KernelError."""
    attributes = bytearray(struct.pack("<III", number, 0, 0))
    what = f"cannot open program {number}"
    return from_fd(syscall.bpf(Command.PROG_GET_FD_BY_ID, attributes, what))


def statistics() -> Descriptor:
    """Let the kernel count runs and their time of all programs until this is closed.

    The same as ``kernel.bpf_stats_enabled``, but gone with its holder; needs Linux 5.8.
    """
    what = "cannot turn BPF statistics on"
    return Descriptor(syscall.bpf(Command.ENABLE_STATS, bytearray(struct.pack("<I", 0)), what))
