"""The instruction set's numbers, as RFC 9669 and linux/bpf.h name them."""

from __future__ import annotations

from enum import IntEnum

INSTRUCTION_SIZE = 8

# Instruction classes, the low three bits of an opcode.
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
CLASS_MASK = 0x07

# Where the second operand comes from.
K = 0x00
X = 0x08

# Addressing modes of loads and stores.
IMM = 0x00
ABS = 0x20
IND = 0x40
MEM = 0x60
MEMSX = 0x80
ATOMIC = 0xC0
MODE_MASK = 0xE0


class Size(IntEnum):
    """Width of a memory access, as it stands in the opcode."""

    W = 0x00
    H = 0x08
    B = 0x10
    DW = 0x18

    @property
    def width(self) -> int:
        """Bytes."""
        return {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}[self]


SIZE_MASK = 0x18
SIZES: dict[int, Size] = {1: Size.B, 2: Size.H, 4: Size.W, 8: Size.DW}


class Alu(IntEnum):
    """Arithmetic, the high four bits of an opcode of class ALU or ALU64."""

    ADD = 0x00
    SUB = 0x10
    MUL = 0x20
    DIV = 0x30
    OR = 0x40
    AND = 0x50
    LSH = 0x60
    RSH = 0x70
    NEG = 0x80
    MOD = 0x90
    XOR = 0xA0
    MOV = 0xB0
    ARSH = 0xC0
    END = 0xD0


class Jump(IntEnum):
    """Jumps, the high four bits of an opcode of class JMP or JMP32."""

    JA = 0x00
    JEQ = 0x10
    JGT = 0x20
    JGE = 0x30
    JSET = 0x40
    JNE = 0x50
    JSGT = 0x60
    JSGE = 0x70
    CALL = 0x80
    EXIT = 0x90
    JLT = 0xA0
    JLE = 0xB0
    JSLT = 0xC0
    JSLE = 0xD0
    JCOND = 0xE0


OPERATION_MASK = 0xF0


class Atomic(IntEnum):
    """Atomic operations, the immediate of an opcode of mode ATOMIC."""

    ADD = 0x00
    OR = 0x40
    AND = 0x50
    XOR = 0xA0
    FETCH_ADD = 0x01
    FETCH_OR = 0x41
    FETCH_AND = 0x51
    FETCH_XOR = 0xA1
    XCHG = 0xE1
    CMPXCHG = 0xF1
    LOAD_ACQUIRE = 0x100
    STORE_RELEASE = 0x110


# What the source register field of a 64-bit load means.
PSEUDO_MAP_FD = 1
PSEUDO_MAP_VALUE = 2
PSEUDO_BTF_ID = 3
PSEUDO_FUNC = 4

# What the source register field of a call means.
PSEUDO_CALL = 1
PSEUDO_KFUNC_CALL = 2

# Opcodes that stand alone.
LD_IMM64 = LD | IMM | Size.DW
JA = JMP | Jump.JA
JA32 = JMP32 | Jump.JA
CALL = JMP | Jump.CALL
EXIT = JMP | Jump.EXIT
MAY_GOTO = JMP | Jump.JCOND
