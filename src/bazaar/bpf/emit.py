"""From IR to BPF instructions: lowering, register allocation, stack layout, encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bazaar.bpf import asm
from bazaar.bpf.arithmetic import signed
from bazaar.bpf.asm import Instruction
from bazaar.bpf.ir import (
    STACK,
    AddressOf,
    AtomicAdd,
    Base,
    Binary,
    Branch,
    ByteSwap,
    Call,
    CallKernel,
    Extend,
    Function,
    Jump,
    Label,
    Load,
    MapAddress,
    Move,
    Node,
    Reg,
    Return,
    Slot,
    Store,
    Unary,
)
from bazaar.bpf.lower import fits, lower
from bazaar.bpf.opcodes import SIZES, Alu, Atomic
from bazaar.bpf.opcodes import Jump as JumpCode
from bazaar.bpf.registers import Allocation, allocate
from bazaar.errors import CompileError
from bazaar.model.record import replace

if TYPE_CHECKING:
    from bazaar.bpf.maps import MapSpec

_ALU: dict[str, Alu] = {
    "add": Alu.ADD, "sub": Alu.SUB, "mul": Alu.MUL, "div": Alu.DIV, "mod": Alu.MOD,
    "and": Alu.AND, "or": Alu.OR, "xor": Alu.XOR, "lsh": Alu.LSH, "rsh": Alu.RSH,
    "arsh": Alu.ARSH, "sdiv": Alu.DIV, "smod": Alu.MOD,
}  # fmt: skip
_JUMP: dict[str, JumpCode] = {
    "eq": JumpCode.JEQ, "ne": JumpCode.JNE, "set": JumpCode.JSET,
    "lt": JumpCode.JLT, "le": JumpCode.JLE, "gt": JumpCode.JGT, "ge": JumpCode.JGE,
    "slt": JumpCode.JSLT, "sle": JumpCode.JSLE, "sgt": JumpCode.JSGT, "sge": JumpCode.JSGE,
}  # fmt: skip


def emit(function: Function, *, version: int = 3) -> list[Instruction]:
    """The instructions, jumps and maps by name, each with its source line.

    ``version`` is the instruction set to use (4 where the kernel has it: shorter signed
    arithmetic). CompileError when the stack does not suffice.
    """
    code = lower(function, version=version)
    allocation = allocate(code, slots=_next_slot(code))
    return _Emission(function, allocation).run()


def scratch_map(function: Function) -> MapSpec | None:
    """The per-CPU map for what does not fit on the stack, or None when all does."""
    if not function.scratch:
        return None
    from bazaar.bpf.maps import MapSpec, MapType

    size = -(-function.scratch // 8) * 8
    return MapSpec(function.scratch_name, MapType.PERCPU_ARRAY, 4, size, 1)


def _slots(code: list[Node]) -> list[Slot]:
    found: dict[Slot, None] = {}
    for node in code:
        base: Base | None = None
        if isinstance(node, (Load, Store, AtomicAdd)):
            base = node.base
        elif isinstance(node, AddressOf):
            base = node.memory.base
        if isinstance(base, Slot):
            found[base] = None
    return list(found)


def _next_slot(code: list[Node]) -> int:
    return max((slot.number for slot in _slots(code)), default=-1) + 1


def _layout(function: Function, code: list[Node]) -> dict[Slot, int]:
    """Offsets from the frame pointer, the most aligned next to it."""
    at = 0
    places: dict[Slot, int] = {}
    for slot in sorted(_slots(code), key=lambda slot: (-slot.align, slot.number)):
        at -= slot.size
        at -= at % slot.align
        places[slot] = at
    if at < -STACK:
        raise CompileError(
            f"'{function.name}' needs {-at} bytes of stack, BPF has {STACK}",
            hint="keep fewer values alive at once, or smaller ones",
        )
    return places


class _Emission:
    def __init__(self, function: Function, allocation: Allocation) -> None:
        self.code = allocation.code
        self.numbers = allocation.numbers
        self.places = _layout(function, allocation.code)
        self.out: list[Instruction] = []
        self.pending: list[str] = []
        self.alias: dict[str, str] = {}

    def run(self) -> list[Instruction]:
        for index, node in enumerate(self.code):
            if isinstance(node, Label):
                self.pending.append(node.name)
            elif not (isinstance(node, Jump) and self.next_is(index, node.to)):
                for instruction in self.one(node):
                    self.put(instruction.at(node.line))
        if self.pending:
            raise CompileError("the program runs past its end")
        return [
            item if item.target is None or item.target not in self.alias else self.renamed(item)
            for item in self.out
        ]

    def renamed(self, item: Instruction) -> Instruction:
        return replace(item, target=self.alias[item.target or ""])

    def next_is(self, index: int, label: str) -> bool:
        for node in self.code[index + 1 :]:
            if not isinstance(node, Label):
                return False
            if node.name == label:
                return True
        return False

    def put(self, instruction: Instruction) -> None:
        if self.pending:
            instruction = instruction.labelled(self.pending[0])
            for name in self.pending[1:]:
                self.alias[name] = self.pending[0]
            self.pending = []
        self.out.append(instruction)

    def reg(self, reg: object) -> int:
        if not isinstance(reg, Reg):
            raise CompileError(f"{reg!r} should be in a register")
        return self.numbers[reg]

    def address(self, base: Base, offset: int) -> tuple[int, int]:
        if isinstance(base, Slot):
            return asm.FP, self.places[base] + offset
        return self.numbers[base], offset

    def one(self, node: Node) -> list[Instruction]:  # noqa: PLR0911 - one case an instruction
        match node:
            case Move(dst=dst, src=Reg() as src):
                same = self.reg(dst) == self.reg(src)
                return [] if same else [asm.mov64_reg(self.reg(dst), self.reg(src))]
            case Move(dst=dst, src=int() as value):
                return [_constant(self.reg(dst), value)]
            case Binary():
                return [self.binary(node)]
            case Unary(op="neg"):
                return [asm.neg64(self.reg(node.dst))]
            case Unary():
                return [asm.alu64_imm(Alu.XOR, self.reg(node.dst), -1)]
            case Extend(signed=True):
                return [asm.movsx64(self.reg(node.dst), self.reg(node.src), 8 * node.size)]
            case Extend():
                return [asm.mov32_reg(self.reg(node.dst), self.reg(node.src))]
            case ByteSwap():
                return [asm.to_be(self.reg(node.dst), 8 * node.size)]
            case _:
                return self.memory_or_control(node)

    def memory_or_control(  # noqa: PLR0911, PLR0912 - one case an instruction
        self, node: Node
    ) -> list[Instruction]:
        match node:
            case Load():
                base, offset = self.address(node.base, node.offset)
                return [asm.load(SIZES[node.size], self.reg(node.dst), base, offset)]
            case Store():
                base, offset = self.address(node.base, node.offset)
                if isinstance(node.value, int):
                    return [asm.store_imm(SIZES[node.size], base, offset, node.value)]
                return [asm.store_reg(SIZES[node.size], base, offset, self.reg(node.value))]
            case AtomicAdd():
                base, offset = self.address(node.base, node.offset)
                value = self.reg(node.value)
                return [asm.atomic(Atomic.ADD, SIZES[node.size], base, offset, value)]
            case AddressOf():
                base, offset = self.address(node.memory.base, node.memory.offset)
                dst = self.reg(node.dst)
                return [asm.mov64_reg(dst, base), asm.alu64_imm(Alu.ADD, dst, offset)]
            case MapAddress(value=True):
                return [asm.load_map_value(self.reg(node.dst), node.map.name, node.offset)]
            case MapAddress():
                return [asm.load_map(self.reg(node.dst), node.map.name)]
            case Call():
                return [asm.call(node.helper)]
            case CallKernel():
                return [asm.call_kfunc(node.function)]
            case Jump():
                return [asm.jump(node.to)]
            case Branch():
                return [self.branch(node)]
            case Return():
                return [asm.exit_()]
            case _:
                raise CompileError(f"no instruction for {type(node).__name__}")

    def binary(self, node: Binary) -> Instruction:
        dst, operation = self.reg(node.dst), _ALU[node.op]
        wide = node.op in {"sdiv", "smod"}
        if isinstance(node.right, int):
            make = asm.signed_imm if wide else asm.alu64_imm
            return make(operation, dst, node.right)
        make = asm.signed_reg if wide else asm.alu64_reg
        return make(operation, dst, self.reg(node.right))

    def branch(self, node: Branch) -> Instruction:
        left, condition = self.reg(node.left), _JUMP[node.op]
        if isinstance(node.right, int):
            return asm.jump_imm(condition, left, node.right, node.to)
        return asm.jump_reg(condition, left, self.reg(node.right), node.to)


def _constant(dst: int, value: int) -> Instruction:
    value = signed(value)
    if fits(value):
        return asm.mov64_imm(dst, value)
    if 0 <= value < 1 << 32:
        return asm.mov32_imm(dst, signed(value << 32) >> 32)
    return asm.load_imm64(dst, value)
