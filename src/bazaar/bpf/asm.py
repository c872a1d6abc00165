"""BPF instructions with symbolic jumps, maps and functions, and the way to bytes (RFC 9669).

An ``Instruction`` says what is meant (``target="loop"``, ``map="counts"``); ``assemble``
turns names into offsets, file descriptors and BTF ids. The constructors below are the
vocabulary; their order of operands is destination first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from bazaar.bpf import helpers
from bazaar.bpf import opcodes as op
from bazaar.bpf.opcodes import Alu, Atomic, Jump, Size
from bazaar.errors import CompileError
from bazaar.model.record import record, replace

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
# Frame pointer: the stack is the 512 bytes below it.
FP = R10

_PACK = struct.Struct("<BBhi").pack
_UNPACK = struct.Struct("<BBhi").unpack_from


@record
class SourceLine:
    """The user's line an instruction was made from; ``line`` and ``column`` count from 1."""

    file: str
    line: int
    text: str = ""
    column: int = 0


@record
class Instruction:
    """One instruction; what is symbolic is resolved by ``assemble``.

    ``label`` names the place before the instruction, ``target`` the label a jump, a call of
    another BPF function or a load of a function's address means. ``map`` is the map a 64-bit
    load refers to (``imm`` is then the offset into its value, for PSEUDO_MAP_VALUE).
    ``kfunc`` is the kernel function a call means. A 64-bit load's ``imm`` has 64 bits.
    """

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    label: str | None = None
    target: str | None = None
    map: str | None = None
    kfunc: str | None = None
    line: SourceLine | None = None

    @property
    def slots(self) -> int:
        """How many 8-byte slots it takes: two for a 64-bit load, else one."""
        return 2 if self.opcode == op.LD_IMM64 else 1

    def labelled(self, label: str) -> Instruction:
        """The same instruction with a name for its place."""
        return replace(self, label=label)

    def at(self, line: SourceLine | None) -> Instruction:
        """The same instruction, made from that line."""
        return replace(self, line=line)


# --- arithmetic ---


def alu64_reg(operation: Alu, dst: int, src: int) -> Instruction:
    """``dst = dst op src`` on 64 bits, unsigned where it matters."""
    return Instruction(op.ALU64 | op.X | operation, dst, src)


def alu64_imm(operation: Alu, dst: int, imm: int) -> Instruction:
    """``dst = dst op imm`` on 64 bits; ``imm`` is a signed 32-bit number, sign-extended."""
    return Instruction(op.ALU64 | op.K | operation, dst, 0, 0, imm)


def alu32_reg(operation: Alu, dst: int, src: int) -> Instruction:
    """``dst = dst op src`` on the low 32 bits; the high ones become 0."""
    return Instruction(op.ALU | op.X | operation, dst, src)


def alu32_imm(operation: Alu, dst: int, imm: int) -> Instruction:
    """``dst = dst op imm`` on the low 32 bits; the high ones become 0."""
    return Instruction(op.ALU | op.K | operation, dst, 0, 0, imm)


def signed_reg(operation: Alu, dst: int, src: int, *, wide: bool = True) -> Instruction:
    """Signed DIV or MOD by a register (needs the instruction set's version 4)."""
    return Instruction((op.ALU64 if wide else op.ALU) | op.X | operation, dst, src, 1)


def signed_imm(operation: Alu, dst: int, imm: int, *, wide: bool = True) -> Instruction:
    """Signed DIV or MOD by a constant (needs the instruction set's version 4)."""
    return Instruction((op.ALU64 if wide else op.ALU) | op.K | operation, dst, 0, 1, imm)


def mov64_reg(dst: int, src: int) -> Instruction:
    return alu64_reg(Alu.MOV, dst, src)


def mov64_imm(dst: int, imm: int) -> Instruction:
    return alu64_imm(Alu.MOV, dst, imm)


def mov32_reg(dst: int, src: int) -> Instruction:
    return alu32_reg(Alu.MOV, dst, src)


def mov32_imm(dst: int, imm: int) -> Instruction:
    return alu32_imm(Alu.MOV, dst, imm)


def movsx64(dst: int, src: int, bits: int) -> Instruction:
    """``dst`` = the low 8, 16 or 32 bits of ``src``, sign-extended (version 4)."""
    return Instruction(op.ALU64 | op.X | Alu.MOV, dst, src, bits)


def neg64(dst: int) -> Instruction:
    return Instruction(op.ALU64 | Alu.NEG, dst)


def neg32(dst: int) -> Instruction:
    return Instruction(op.ALU | Alu.NEG, dst)


def to_be(dst: int, bits: int) -> Instruction:
    """Convert 16, 32 or 64 bits between the machine's byte order and the network's."""
    return Instruction(op.ALU | op.X | Alu.END, dst, 0, 0, bits)


def to_le(dst: int, bits: int) -> Instruction:
    """Convert to little-endian; on a little-endian machine this cuts to ``bits``."""
    return Instruction(op.ALU | op.K | Alu.END, dst, 0, 0, bits)


def bswap(dst: int, bits: int) -> Instruction:
    """Swap the bytes whatever the machine's order is (version 4)."""
    return Instruction(op.ALU64 | Alu.END, dst, 0, 0, bits)


# --- memory ---


def load(size: Size, dst: int, src: int, offset: int = 0) -> Instruction:
    """``dst = *(size *)(src + offset)``, zero-extended."""
    return Instruction(op.LDX | op.MEM | size, dst, src, offset)


def load_signed(size: Size, dst: int, src: int, offset: int = 0) -> Instruction:
    """``dst = *(size *)(src + offset)``, sign-extended (version 4)."""
    return Instruction(op.LDX | op.MEMSX | size, dst, src, offset)


def store_reg(size: Size, dst: int, offset: int, src: int) -> Instruction:
    """``*(size *)(dst + offset) = src``."""
    return Instruction(op.STX | op.MEM | size, dst, src, offset)


def store_imm(size: Size, dst: int, offset: int, imm: int) -> Instruction:
    """``*(size *)(dst + offset) = imm``, a 32-bit number, sign-extended for DW."""
    return Instruction(op.ST | op.MEM | size, dst, 0, offset, imm)


def atomic(operation: Atomic, size: Size, dst: int, offset: int, src: int) -> Instruction:
    """An atomic operation on ``*(dst + offset)`` with ``src``; W or DW."""
    return Instruction(op.STX | op.ATOMIC | size, dst, src, offset, operation)


def load_imm64(dst: int, value: int) -> Instruction:
    """``dst`` = a number of 64 bits; takes two slots."""
    return Instruction(op.LD_IMM64, dst, 0, 0, value)


def load_map(dst: int, name: str) -> Instruction:
    """``dst`` = the map of that name, as helpers take it."""
    return Instruction(op.LD_IMM64, dst, op.PSEUDO_MAP_FD, 0, 0, map=name)


def load_map_value(dst: int, name: str, offset: int = 0) -> Instruction:
    """``dst`` = address of the first element of an array map, plus ``offset``."""
    return Instruction(op.LD_IMM64, dst, op.PSEUDO_MAP_VALUE, 0, offset, map=name)


def load_btf_variable(dst: int, btf_id: int) -> Instruction:
    """``dst`` = address of a kernel variable, by the BTF id of its VAR."""
    return Instruction(op.LD_IMM64, dst, op.PSEUDO_BTF_ID, 0, btf_id)


def load_function(dst: int, target: str) -> Instruction:
    """``dst`` = the BPF function at a label, as callbacks are handed to helpers."""
    return Instruction(op.LD_IMM64, dst, op.PSEUDO_FUNC, target=target)


# --- control ---


def jump(target: str) -> Instruction:
    return Instruction(op.JA, target=target)


def jump_reg(condition: Jump, dst: int, src: int, target: str, *, wide: bool = True) -> Instruction:
    """Jump if ``dst condition src``; on the low 32 bits unless ``wide``."""
    return Instruction((op.JMP if wide else op.JMP32) | op.X | condition, dst, src, target=target)


def jump_imm(condition: Jump, dst: int, imm: int, target: str, *, wide: bool = True) -> Instruction:
    """Jump if ``dst condition imm``; ``imm`` is sign-extended to 64 bits if ``wide``."""
    return Instruction(
        (op.JMP if wide else op.JMP32) | op.K | condition, dst, 0, 0, imm, target=target
    )


def call(helper: int | str) -> Instruction:
    """Call a helper by number or by name (``bpf_`` may be left out)."""
    number = helper if isinstance(helper, int) else helpers.number(helper)
    if number is None:
        raise CompileError(
            f"the kernel has no BPF helper '{helper}'",
            hint="functions that came after Linux 6.2 are kfuncs",
        )
    return Instruction(op.CALL, imm=number)


def call_kfunc(name: str, btf_id: int = 0) -> Instruction:
    """Call a kernel function; its BTF id is looked up by name when it is assembled."""
    return Instruction(op.CALL, 0, op.PSEUDO_KFUNC_CALL, 0, btf_id, kfunc=name)


def call_function(target: str) -> Instruction:
    """Call the BPF function that begins at a label of the same program."""
    return Instruction(op.CALL, 0, op.PSEUDO_CALL, target=target)


def exit_() -> Instruction:
    return Instruction(op.EXIT)


# --- to bytes and back ---


def positions(instructions: Iterable[Instruction]) -> tuple[list[int], dict[str, int]]:
    """The slot each instruction begins at, and the slot each label names."""
    slots: list[int] = []
    labels: dict[str, int] = {}
    slot = 0
    for instruction in instructions:
        if instruction.label is not None:
            if instruction.label in labels:
                raise CompileError(f"label '{instruction.label}' is defined twice")
            labels[instruction.label] = slot
        slots.append(slot)
        slot += instruction.slots
    return slots, labels


def assemble(
    instructions: Sequence[Instruction],
    map_fds: Mapping[str, int] | None = None,
    kfunc_ids: Mapping[str, int] | None = None,
) -> bytes:
    """The program as bpf(2) takes it.

    Labels become offsets; a jump too far for 16 bits becomes the 32-bit ``gotol``. Maps
    become descriptors by ``map_fds``, kfuncs BTF ids by ``kfunc_ids``. CompileError names the
    instruction that cannot be encoded.
    """
    slots, labels = positions(instructions)
    parts: list[bytes] = []
    for slot, item in zip(slots, instructions, strict=True):
        try:
            parts.append(_encode(item, slot, labels, map_fds or {}, kfunc_ids or {}))
        except (struct.error, ValueError) as error:
            raise _located(item, f"instruction {slot} cannot be encoded: {error}") from error
    return b"".join(parts)


def _encode(
    item: Instruction,
    slot: int,
    labels: Mapping[str, int],
    map_fds: Mapping[str, int],
    kfunc_ids: Mapping[str, int],
) -> bytes:
    if not (0 <= item.dst <= 15 and 0 <= item.src <= 15):
        raise ValueError(f"no such register in dst {item.dst}, src {item.src}")
    opcode, offset, imm = item.opcode, item.offset, item.imm
    registers = item.dst | item.src << 4
    if opcode == op.LD_IMM64:
        return _encode_load64(item, slot, labels, map_fds)
    if item.kfunc is not None:
        imm = kfunc_ids.get(item.kfunc, imm)
        if not imm:
            raise ValueError(f"kernel function '{item.kfunc}' has no BTF id")
    if item.target is not None:
        distance = _distance(item.target, slot, labels)
        if opcode in {op.CALL, op.JA32}:
            imm = distance
        elif -0x8000 <= distance <= 0x7FFF:
            offset = distance
        elif opcode == op.JA:
            opcode, imm = op.JA32, distance
        else:
            raise ValueError(f"'{item.target}' is {distance} slots away, 32767 are possible")
    return _PACK(opcode, registers, offset, _immediate(opcode, imm))


def _encode_load64(
    item: Instruction, slot: int, labels: Mapping[str, int], map_fds: Mapping[str, int]
) -> bytes:
    low = high = 0
    if item.map is not None:
        if item.map not in map_fds:
            raise ValueError(f"map '{item.map}' is not given")
        low = map_fds[item.map]
        high = item.imm if item.src == op.PSEUDO_MAP_VALUE else 0
    elif item.target is not None:
        low = _distance(item.target, slot, labels)
    else:
        if not -(1 << 63) <= item.imm < 1 << 64:
            raise ValueError(f"{item.imm} needs more than 64 bits")
        low, high = item.imm & 0xFFFFFFFF, item.imm >> 32 & 0xFFFFFFFF
    registers = item.dst | item.src << 4
    first = _PACK(op.LD_IMM64, registers, item.offset, _signed32(low))
    return first + _PACK(0, 0, 0, _signed32(high))


def _distance(target: str, slot: int, labels: Mapping[str, int]) -> int:
    if target not in labels:
        raise ValueError(f"label '{target}' is not defined")
    return labels[target] - slot - 1


def _immediate(opcode: int, imm: int) -> int:
    """``imm`` as a signed 32-bit number; unsigned is taken where nothing sign-extends it."""
    if -0x80000000 <= imm <= 0x7FFFFFFF:
        return imm
    klass = opcode & op.CLASS_MASK
    narrow = klass in {op.ALU, op.JMP32} or (klass == op.ST and opcode & op.SIZE_MASK != Size.DW)
    if narrow and imm <= 0xFFFFFFFF and imm >= 0:
        return _signed32(imm)
    raise ValueError(f"{imm} does not fit into 32 bits")


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _located(item: Instruction, message: str) -> CompileError:
    if item.line is None:
        return CompileError(message)
    return CompileError(message, file=item.line.file, line=item.line.line, column=item.line.column)


def decode(code: bytes) -> list[Instruction]:
    """Instructions from bytes, jumps as bare offsets.

    Raises CompileError when the bytes are no whole number of instructions.
    """
    if len(code) % op.INSTRUCTION_SIZE:
        raise CompileError(f"{len(code)} bytes are no whole number of instructions")
    found: list[Instruction] = []
    position = 0
    while position < len(code):
        opcode, registers, offset, imm = _UNPACK(code, position)
        position += op.INSTRUCTION_SIZE
        if opcode == op.LD_IMM64:
            if position == len(code):
                raise CompileError("the second half of a 64-bit load is missing")
            high: int = _UNPACK(code, position)[3]
            position += op.INSTRUCTION_SIZE
            imm = (imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32
        found.append(Instruction(opcode, registers & 15, registers >> 4, offset, imm))
    return found


def disassemble(code: bytes) -> list[str]:
    """One line an instruction, in the notation of the verifier's log and bpftool."""
    from bazaar.bpf.disassembler import lines

    return lines(code)
