"""From the IR to machine form, still over virtual registers: the last step before allocation.

Two-address arithmetic, immediates that fit, call arguments in r1 to r5, results in r0. Machine
registers are the `Reg` objects in `MACHINE`; each instruction left is one of BPF's (an
`AddressOf` of a slot is two).
"""

from __future__ import annotations

from bazaar.bpf.arithmetic import WORD, signed
from bazaar.bpf.ir import (
    COMMUTATIVE,
    COMPARISONS,
    MIRROR,
    AddressOf,
    AtomicAdd,
    Binary,
    BinaryOp,
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
    MapRef,
    Memory,
    Move,
    Node,
    Operand,
    Reg,
    Return,
    Slot,
    Store,
    Unary,
)
from bazaar.errors import CompileError

MACHINE: tuple[Reg, ...] = tuple(Reg(-10 + number, f"r{number}") for number in range(10))
R0, R1 = MACHINE[0], MACHINE[1]
ARGUMENTS = MACHINE[1:6]


def fits(value: int) -> bool:
    """Whether an immediate of 32 bits, sign-extended, is this 64-bit value."""
    return -(1 << 31) <= signed(value) < 1 << 31


def lower(function: Function, *, version: int = 3) -> list[Node]:
    """The function in machine form; ``version`` of the instruction set: 4 has signed division
    and sign-extending moves, in 3 they take several instructions."""
    return _Lowering(function, version).run()


class _Lowering:
    def __init__(self, function: Function, version: int) -> None:
        self.function = function
        self.version = version
        self.code: list[Node] = []
        self.labels = 0
        numbers = [reg.number for node in function.code for reg in node.uses()]
        numbers += [reg.number for node in function.code if (reg := node.defines())]
        self.registers = max(numbers, default=0) + 1
        self.at: Node = function.code[0]

    def run(self) -> list[Node]:  # noqa: PLR0912 - one case an instruction
        line = self.at.line
        self.code.append(Move(self.function.context, R1, line=line))
        for node in self.function.code:
            self.at = node
            match node:
                case Move() | MapAddress() | Jump() | Label():
                    self.code.append(node)
                case Binary() if node.op in COMPARISONS:
                    self.comparison(node)
                case Binary():
                    self.binary(node.dst, node.op, node.left, node.right)
                case Unary():
                    self.move(node.dst, node.src)
                    self.code.append(Unary(node.dst, node.op, node.dst, line=node.line))
                case Extend():
                    self.extend(node)
                case ByteSwap():
                    self.move(node.dst, node.src)
                    self.code.append(ByteSwap(node.dst, node.dst, node.size, line=node.line))
                case Load():
                    self.load(node)
                case Store():
                    self.store(node)
                case AtomicAdd():
                    value = self.register(node.value)
                    self.code.append(
                        AtomicAdd(node.base, node.offset, node.size, value, line=node.line)
                    )
                case AddressOf():
                    self.address(node.dst, node.memory)
                case Call() | CallKernel():
                    self.call(node)
                case Branch():
                    self.branch(node)
                case Return():
                    self.move(R0, node.value)
                    self.code.append(Return(R0, line=node.line))
                case _:
                    raise CompileError(f"no machine form for {type(node).__name__}")
        return self.code

    def fresh(self) -> Reg:
        self.registers += 1
        return Reg(self.registers - 1)

    def move(self, dst: Reg, src: Operand) -> None:
        if dst is not src:
            self.code.append(Move(dst, src, line=self.at.line))

    def register(self, value: Operand) -> Reg:
        if isinstance(value, Reg):
            return value
        dst = self.fresh()
        self.move(dst, value)
        return dst

    def immediate(self, value: Operand) -> Operand:
        if isinstance(value, int) and fits(value):
            return signed(value)
        return self.register(value)

    def binary(self, dst: Reg, op: BinaryOp, left: Operand, right: Operand) -> None:
        line = self.at.line
        if isinstance(right, int):
            if op in {"lsh", "rsh", "arsh"}:
                right &= 63  # the verifier refuses what the instruction would mask
            elif right & WORD == 0 and op in {"div", "mod", "sdiv", "smod"}:
                self.move(dst, left if op in {"mod", "smod"} else 0)
                return
        if op in {"sdiv", "smod"} and self.version < 4:
            self.signed_division(dst, op == "smod", left, right)
            return
        if dst is right and dst is not left:
            if op in COMMUTATIVE:
                left, right = right, left
            elif op == "sub":
                self.code.append(Unary(dst, "neg", dst, line=line))
                self.code.append(Binary(dst, "add", dst, self.immediate(left), line=line))
                return
            else:
                copy = self.fresh()
                self.move(copy, left)
                self.code.append(Binary(copy, op, copy, right, line=line))
                self.move(dst, copy)
                return
        if op in COMMUTATIVE and not isinstance(left, Reg):
            left, right = right, left
        right = self.immediate(right)
        self.move(dst, left)
        self.code.append(Binary(dst, op, dst, right, line=line))

    def signed_division(self, dst: Reg, modulo: bool, left: Operand, right: Operand) -> None:
        """By absolute values: |left| op |right|, then the sign, as version 4's would be."""
        first, second, sign = self.fresh(), self.fresh(), self.fresh()
        self.move(first, left)
        self.move(second, right)
        self.move(sign, first)
        if not modulo:
            self.binary(sign, "xor", sign, second)
        for value in (first, second):
            self.skip_unless_negative(value, value)
        self.binary(first, "mod" if modulo else "div", first, second)
        self.skip_unless_negative(sign, first)
        self.move(dst, first)

    def skip_unless_negative(self, sign: Reg, value: Reg) -> None:
        end = self.label()
        line = self.at.line
        self.code.append(Branch("sge", sign, 0, end, line=line))
        self.code.append(Unary(value, "neg", value, line=line))
        self.code.append(Label(end))

    def label(self) -> str:
        self.labels += 1
        return f".{self.labels}"

    def comparison(self, node: Binary) -> None:
        dst = self.fresh() if node.dst is node.left or node.dst is node.right else node.dst
        end = self.label()
        left, op, right = self.ordered(node.op, node.left, node.right)
        self.move(dst, 1)
        self.code.append(Branch(op, left, right, end, line=node.line))  # type: ignore[arg-type]
        self.move(dst, 0)
        self.code.append(Label(end))
        self.move(node.dst, dst)

    def ordered(self, op: str, left: Operand, right: Operand) -> tuple[Reg, str, Operand]:
        """Left in a register, right a register or a 32-bit immediate."""
        if not isinstance(left, Reg) and isinstance(right, Reg):
            left, op, right = right, MIRROR[op], left  # type: ignore[index]
        return self.register(left), op, self.immediate(right)

    def branch(self, node: Branch) -> None:
        left, op, right = self.ordered(node.op, node.left, node.right)
        self.code.append(Branch(op, left, right, node.to, line=node.line))  # type: ignore[arg-type]

    def extend(self, node: Extend) -> None:
        if node.size == 8:
            self.move(node.dst, node.src)
        elif (node.size == 4 and not node.signed) or (node.signed and self.version >= 4):
            src = self.register(node.src)
            self.code.append(Extend(node.dst, src, node.size, node.signed, line=node.line))
        elif not node.signed:
            self.binary(node.dst, "and", node.src, (1 << 8 * node.size) - 1)
        else:
            self.binary(node.dst, "lsh", node.src, 64 - 8 * node.size)
            self.binary(node.dst, "arsh", node.dst, 64 - 8 * node.size)

    def load(self, node: Load) -> None:
        self.code.append(Load(node.dst, node.base, node.offset, node.size, line=node.line))
        if node.signed and node.size < 8:
            self.extend(Extend(node.dst, node.dst, node.size, signed=True, line=node.line))

    def store(self, node: Store) -> None:
        value = node.value
        if isinstance(value, int):
            value &= (1 << 8 * node.size) - 1
            if node.size == 4 and value >> 31:
                value -= 1 << 32
            value = self.immediate(value)
        self.code.append(Store(node.base, node.offset, node.size, value, line=node.line))

    def address(self, dst: Reg, memory: Memory) -> None:
        if isinstance(memory.base, Slot):
            self.code.append(AddressOf(dst, memory, line=self.at.line))
            return
        self.move(dst, memory.base)
        if memory.offset:
            self.code.append(Binary(dst, "add", dst, memory.offset, line=self.at.line))

    def call(self, node: Call | CallKernel) -> None:
        if len(node.arguments) > len(ARGUMENTS):
            raise CompileError("a call takes at most five arguments")
        used = ARGUMENTS[: len(node.arguments)]
        for place, argument in zip(used, node.arguments, strict=True):
            if isinstance(argument, Memory):
                self.address(place, argument)
            elif isinstance(argument, MapRef):
                self.code.append(MapAddress(place, argument, line=node.line))
            else:
                self.move(place, argument)
        if isinstance(node, Call):
            self.code.append(Call(R0, node.helper, used, line=node.line))
        else:
            self.code.append(CallKernel(R0, node.function, used, line=node.line))
        if node.dst is not None:
            self.move(node.dst, R0)
