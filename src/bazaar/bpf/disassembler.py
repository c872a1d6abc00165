"""Instructions as text, in the notation of the kernel's verifier log and of bpftool."""

from __future__ import annotations

from bazaar.bpf import helpers
from bazaar.bpf import opcodes as op
from bazaar.bpf.asm import Instruction, decode
from bazaar.bpf.opcodes import Alu, Atomic, Jump, Size

_TYPES = {Size.B: "u8", Size.H: "u16", Size.W: "u32", Size.DW: "u64"}
_ALU = {
    Alu.ADD: "+=",
    Alu.SUB: "-=",
    Alu.MUL: "*=",
    Alu.DIV: "/=",
    Alu.OR: "|=",
    Alu.AND: "&=",
    Alu.LSH: "<<=",
    Alu.RSH: ">>=",
    Alu.MOD: "%=",
    Alu.XOR: "^=",
    Alu.MOV: "=",
    Alu.ARSH: "s>>=",
}
_JUMPS = {
    Jump.JEQ: "==",
    Jump.JGT: ">",
    Jump.JGE: ">=",
    Jump.JSET: "&",
    Jump.JNE: "!=",
    Jump.JSGT: "s>",
    Jump.JSGE: "s>=",
    Jump.JLT: "<",
    Jump.JLE: "<=",
    Jump.JSLT: "s<",
    Jump.JSLE: "s<=",
}
_PLAIN = {op.JA: "goto", op.JA32: "gotol", op.MAY_GOTO: "may_goto"}
_ATOMIC = {Atomic.ADD: "+=", Atomic.OR: "|=", Atomic.AND: "&=", Atomic.XOR: "^="}
_FETCH = {
    Atomic.FETCH_ADD: "add",
    Atomic.FETCH_OR: "or",
    Atomic.FETCH_AND: "and",
    Atomic.FETCH_XOR: "xor",
}


def lines(code: bytes) -> list[str]:
    """``slot: (opcode) text`` for each instruction of a program."""
    shown: list[str] = []
    slot = 0
    for item in decode(code):
        shown.append(f"{slot:4}: ({item.opcode:02x}) {text(item)}")
        slot += item.slots
    return shown


def text(item: Instruction) -> str:
    """One instruction; what is no instruction is shown as ``unknown`` with its fields."""
    klass = item.opcode & op.CLASS_MASK
    if klass in {op.ALU, op.ALU64}:
        shown = _arithmetic(item, klass == op.ALU64)
    elif klass in {op.JMP, op.JMP32}:
        shown = _control(item, klass == op.JMP)
    elif klass == op.LD:
        shown = _load64(item)
    else:
        shown = _memory(item, klass)
    fields = f"dst={item.dst} src={item.src} off={item.offset} imm={item.imm & 0xFFFFFFFF:#x}"
    return f"unknown {fields}" if shown is None else shown


def _arithmetic(item: Instruction, wide: bool) -> str | None:
    operation = item.opcode & op.OPERATION_MASK
    letter = "r" if wide else "w"
    dst = f"{letter}{item.dst}"
    register = bool(item.opcode & op.X)
    if operation == Alu.NEG:
        return f"{dst} = -{dst}"
    if operation == Alu.END:
        if wide:
            return f"r{item.dst} = bswap{item.imm} r{item.dst}"
        return f"r{item.dst} = {'be' if register else 'le'}{item.imm} r{item.dst}"
    sign = _ALU.get(Alu(operation)) if operation in _ALU else None
    if sign is None:
        return None
    source = f"{letter}{item.src}" if register else str(item.imm)
    if operation == Alu.MOV and register and item.offset in {8, 16, 32}:
        source = f"(s{item.offset}){source}"
    if operation in {Alu.DIV, Alu.MOD} and item.offset == 1:
        sign = f"s{sign}"
    return f"{dst} {sign} {source}"


def _control(item: Instruction, wide: bool) -> str | None:
    operation = item.opcode & op.OPERATION_MASK
    if item.opcode == op.CALL:
        return _call(item)
    if item.opcode in _PLAIN:
        return f"{_PLAIN[item.opcode]} {_to(item)}"
    if item.opcode == op.EXIT:
        return "exit"
    if operation not in _JUMPS:
        return None
    letter = "r" if wide else "w"
    source = f"{letter}{item.src}" if item.opcode & op.X else f"{item.imm & 0xFFFFFFFF:#x}"
    return f"if {letter}{item.dst} {_JUMPS[Jump(operation)]} {source} goto {_to(item)}"


def _to(item: Instruction) -> str:
    if item.target is not None:
        return item.target
    return f"pc{item.imm if item.opcode == op.JA32 else item.offset:+d}"


def _call(item: Instruction) -> str:
    if item.src == op.PSEUDO_CALL:
        return f"call {item.target}" if item.target else f"call pc{item.imm:+d}"
    if item.src == op.PSEUDO_KFUNC_CALL:
        return f"call {item.kfunc or 'kernel-function'}#{item.imm}"
    return f"call bpf_{helpers.name(item.imm)}#{item.imm}"


def _load64(item: Instruction) -> str | None:
    if item.opcode != op.LD_IMM64:
        return None
    low, high = item.imm & 0xFFFFFFFF, item.imm >> 32 & 0xFFFFFFFF
    name = item.map or f"fd:{low}"
    if item.src == op.PSEUDO_MAP_FD:
        return f"r{item.dst} = map[{name}]"
    if item.src == op.PSEUDO_MAP_VALUE:
        return f"r{item.dst} = map[{name}][0]+{item.imm if item.map else high}"
    if item.src == op.PSEUDO_FUNC:
        signed = low - (1 << 32) if low & 0x80000000 else low
        return f"r{item.dst} = subprog[{item.target or f'{signed:+d}'}]"
    return f"r{item.dst} = {item.imm & 0xFFFFFFFFFFFFFFFF:#x}"


def _memory(item: Instruction, klass: int) -> str | None:
    mode = item.opcode & op.MODE_MASK
    kind = _TYPES[Size(item.opcode & op.SIZE_MASK)]
    if klass == op.LDX and mode in {op.MEM, op.MEMSX}:
        kind = kind if mode == op.MEM else f"s{kind[1:]}"
        return f"r{item.dst} = *({kind} *)(r{item.src} {item.offset:+d})"
    place = f"({kind} *)(r{item.dst} {item.offset:+d})"
    if mode == op.MEM and klass == op.STX:
        return f"*{place} = r{item.src}"
    if mode == op.MEM and klass == op.ST:
        return f"*{place} = {item.imm}"
    return _atomic(item, kind, place) if mode == op.ATOMIC and klass == op.STX else None


def _atomic(item: Instruction, kind: str, place: str) -> str | None:
    wide = "64" if kind == "u64" else ""
    shown: str | None = None
    if item.imm in _ATOMIC:
        shown = f"lock *{place} {_ATOMIC[Atomic(item.imm)]} r{item.src}"
    elif item.imm in _FETCH:
        name = _FETCH[Atomic(item.imm)]
        shown = f"r{item.src} = atomic{wide}_fetch_{name}({place}, r{item.src})"
    elif item.imm == Atomic.CMPXCHG:
        shown = f"r0 = atomic{wide}_cmpxchg({place}, r0, r{item.src})"
    elif item.imm == Atomic.XCHG:
        shown = f"r{item.src} = atomic{wide}_xchg({place}, r{item.src})"
    elif item.imm == Atomic.LOAD_ACQUIRE:
        shown = f"r{item.dst} = load_acquire(({kind} *)(r{item.src} {item.offset:+d}))"
    elif item.imm == Atomic.STORE_RELEASE:
        shown = f"store_release({place}, r{item.src})"
    return shown
