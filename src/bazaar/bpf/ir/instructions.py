"""The instructions, one frozen class each; a pass that changes one makes a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bazaar.bpf.ir.operands import (
    Argument,
    Base,
    BinaryOp,
    Condition,
    MapRef,
    Memory,
    Operand,
    Reg,
    Size,
    Substitute,
    swap,
    swap_base,
    swap_operand,
    used,
)
from bazaar.model.record import record, replace

if TYPE_CHECKING:
    from bazaar.bpf.asm import SourceLine


@record(kw_only=True)
class Node:
    """What every instruction has: the place in the user's text it comes from."""

    line: SourceLine | None = None
    pure: ClassVar[bool] = False  # may be dropped when its result is not used

    @property
    def target(self) -> str | None:
        """The label this instruction may jump to."""
        return None

    def uses(self) -> tuple[Reg, ...]:
        """The registers read."""
        return ()

    def defines(self) -> Reg | None:
        """The register written."""
        return None

    def substitute(self, to: Substitute) -> Node:
        """The same instruction reading other operands."""
        return self

    def into(self, dst: Reg) -> Node:
        """The same instruction writing another register."""
        return self


@record
class Result(Node):
    """An instruction that writes one register."""

    dst: Reg

    def defines(self) -> Reg | None:
        return self.dst

    def into(self, dst: Reg) -> Node:
        return replace(self, dst=dst)


@record
class Move(Result):
    """dst = src."""

    src: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return Move(self.dst, swap_operand(self.src, to), line=self.line)


@record
class Binary(Result):
    """dst = left op right; a comparison gives 1 or 0."""

    op: BinaryOp
    left: Operand
    right: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.left, self.right)

    def substitute(self, to: Substitute) -> Node:
        left, right = swap_operand(self.left, to), swap_operand(self.right, to)
        return Binary(self.dst, self.op, left, right, line=self.line)


@record
class Unary(Result):
    """dst = -src (`neg`) or ~src (`not`)."""

    op: Literal["neg", "not"]
    src: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return Unary(self.dst, self.op, swap_operand(self.src, to), line=self.line)


@record
class Extend(Result):
    """dst = the low ``size`` bytes of src, zero- or sign-extended to 64 bits."""

    src: Operand
    size: Size
    signed: bool = False
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.src)

    def substitute(self, to: Substitute) -> Node:
        src = swap_operand(self.src, to)
        return Extend(self.dst, src, self.size, self.signed, line=self.line)


@record
class ByteSwap(Result):
    """dst = the low ``size`` bytes of src in reverse order, zero-extended."""

    src: Operand
    size: Literal[2, 4, 8]
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return ByteSwap(self.dst, swap_operand(self.src, to), self.size, line=self.line)


@record
class Load(Result):
    """dst = ``size`` bytes at base + offset, in the machine's byte order."""

    base: Base
    offset: int
    size: Size
    signed: bool = False
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.base)

    def substitute(self, to: Substitute) -> Node:
        base = swap_base(self.base, to)
        return Load(self.dst, base, self.offset, self.size, self.signed, line=self.line)


@record
class Write(Node):
    """An instruction that changes memory."""

    base: Base
    offset: int
    size: Size
    value: Operand

    def uses(self) -> tuple[Reg, ...]:
        return used(self.base, self.value)

    def substitute(self, to: Substitute) -> Node:
        base, value = swap_base(self.base, to), swap_operand(self.value, to)
        return type(self)(base, self.offset, self.size, value, line=self.line)


@record
class Store(Write):
    """Write the low ``size`` bytes of value at base + offset."""


@record
class AtomicAdd(Write):
    """Add value to the ``size`` (4 or 8) bytes at base + offset, atomically."""


@record
class AddressOf(Result):
    """dst = the address itself."""

    memory: Memory
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return used(self.memory)

    def substitute(self, to: Substitute) -> Node:
        base = swap_base(self.memory.base, to)
        return AddressOf(self.dst, Memory(base, self.memory.offset), line=self.line)


@record
class MapAddress(Result):
    """dst = the map, or with ``value`` the address of an array map's first value + offset."""

    map: MapRef
    value: bool = False
    offset: int = 0
    pure: ClassVar[bool] = True


@record
class Invocation(Node):
    """A call: ``dst`` takes what it returns."""

    dst: Reg | None

    def defines(self) -> Reg | None:
        return self.dst

    def into(self, dst: Reg) -> Node:
        return replace(self, dst=dst)


@record
class Call(Invocation):
    """Call a helper by number; at most five arguments."""

    helper: int
    arguments: tuple[Argument, ...] = ()

    def uses(self) -> tuple[Reg, ...]:
        return used(*self.arguments)

    def substitute(self, to: Substitute) -> Node:
        return replace(self, arguments=tuple(swap(a, to) for a in self.arguments))


@record
class CallKernel(Invocation):
    """Call a kernel function (kfunc) by name; its BTF id is looked up when loading."""

    function: str
    arguments: tuple[Argument, ...] = ()

    def uses(self) -> tuple[Reg, ...]:
        return used(*self.arguments)

    def substitute(self, to: Substitute) -> Node:
        return replace(self, arguments=tuple(swap(a, to) for a in self.arguments))


@record
class Label(Node):
    """A place to jump to."""

    name: str


@record
class Jump(Node):
    """Go on at the label."""

    to: str

    @property
    def target(self) -> str | None:
        return self.to


@record
class Branch(Node):
    """Go on at the label when the condition holds, else with the next instruction."""

    op: Condition
    left: Operand
    right: Operand
    to: str

    @property
    def target(self) -> str | None:
        return self.to

    def uses(self) -> tuple[Reg, ...]:
        return used(self.left, self.right)

    def substitute(self, to: Substitute) -> Node:
        left, right = swap_operand(self.left, to), swap_operand(self.right, to)
        return Branch(self.op, left, right, self.to, line=self.line)


@record
class Return(Node):
    """End the program with this value."""

    value: Operand

    def uses(self) -> tuple[Reg, ...]:
        return used(self.value)

    def substitute(self, to: Substitute) -> Node:
        return Return(swap_operand(self.value, to), line=self.line)
