"""What instructions work on: registers, stack slots, addresses, maps; and the operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from bazaar.model.record import record

Arithmetic = Literal[
    "add", "sub", "mul", "div", "mod", "sdiv", "smod", "and", "or", "xor", "lsh", "rsh", "arsh"
]
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge", "slt", "sle", "sgt", "sge"]
BinaryOp: TypeAlias = Arithmetic | Comparison
Condition: TypeAlias = Comparison | Literal["set"]  # set: left & right is not 0
Size = Literal[1, 2, 4, 8]

COMPARISONS: frozenset[str] = frozenset(
    ("eq", "ne", "lt", "le", "gt", "ge", "slt", "sle", "sgt", "sge")
)
COMMUTATIVE: frozenset[str] = frozenset(("add", "mul", "and", "or", "xor", "eq", "ne"))
INVERSE: dict[Condition, Condition] = {
    "eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt",
    "slt": "sge", "sge": "slt", "sgt": "sle", "sle": "sgt",
}  # fmt: skip
"""The condition that holds exactly when the key does not (`set` has none)."""
MIRROR: dict[Condition, Condition] = {
    "eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le",
    "slt": "sgt", "sgt": "slt", "sle": "sge", "sge": "sle", "set": "set",
}  # fmt: skip
"""The condition that holds for (right, left) exactly when the key holds for (left, right)."""

STACK = 512
STACK_FOR_SLOTS = 384  # the rest is for spilled registers; beyond, `Builder.buffer` uses scratch


@record(eq=False)
class Reg:
    """A virtual register; two are the same only when they are the same object."""

    number: int
    name: str = ""

    def __repr__(self) -> str:
        return f"%{self.number}{self.name and '.' + self.name}"


@record(eq=False)
class Slot:
    """A piece of the stack: ``size`` bytes, aligned to ``align`` (a power of two, at most 8)."""

    number: int
    size: int
    align: int = 8

    def __repr__(self) -> str:
        return f"${self.number}[{self.size}]"


Base: TypeAlias = Reg | Slot
Operand: TypeAlias = Reg | int


@record
class Memory:
    """An address: ``base`` plus a constant number of bytes."""

    base: Base
    offset: int = 0

    def __add__(self, offset: int) -> Memory:
        return Memory(self.base, self.offset + offset)

    def __repr__(self) -> str:
        return f"[{self.base!r}{self.offset:+d}]" if self.offset else f"[{self.base!r}]"


@record
class MapRef:
    """A map by its name; becomes the pointer to the kernel's map when the program is loaded."""

    name: str

    def __repr__(self) -> str:
        return f"@{self.name}"


Argument: TypeAlias = Operand | Memory | MapRef
Substitute: TypeAlias = Callable[[Reg], Operand]


def swap(value: Argument, to: Substitute) -> Argument:
    if isinstance(value, Reg):
        return to(value)
    if isinstance(value, Memory):
        return Memory(swap_base(value.base, to), value.offset)
    return value


def swap_operand(value: Operand, to: Substitute) -> Operand:
    return to(value) if isinstance(value, Reg) else value


def swap_base(base: Base, to: Substitute) -> Base:
    """Addresses need a register: a constant instead of it is not taken over."""
    new = to(base) if isinstance(base, Reg) else base
    return base if isinstance(new, int) else new


def used(*values: Argument | Base) -> tuple[Reg, ...]:
    found: list[Reg] = []
    for value in values:
        if isinstance(value, Memory):
            value = value.base
        if isinstance(value, Reg):
            found.append(value)
    return tuple(found)
