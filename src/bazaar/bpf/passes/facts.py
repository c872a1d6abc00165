"""What is known of registers while a pass walks the code."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bazaar.bpf import arithmetic
from bazaar.bpf.ir import COMPARISONS, Base, Binary, Extend, Label, Load, Move, Node, Operand, Reg

Code = list[Node]
MAX_COPIES = 64


class Facts:
    """What is known of registers while walking the code from its start.

    ``once`` holds what registers written exactly once are: true everywhere the register may be
    read, as long as what it is made of is written once too. ``here`` holds what is true since
    the last label.
    """

    __slots__ = ("here", "once", "readers")

    def __init__(self, once: dict[Reg, Node]) -> None:
        self.once = once
        self.here: dict[Reg, Node] = {}
        self.readers: dict[Reg, set[Reg]] = {}

    @classmethod
    def of(cls, code: Iterable[Node]) -> Facts:
        """The facts that hold everywhere."""
        writes: dict[Reg, Node | None] = {}
        for node in code:
            dst = node.defines()
            if dst is not None:
                writes[dst] = None if dst in writes else node
        once: dict[Reg, Node] = {}
        for reg, node in writes.items():
            if node is not None and all(writes.get(used, node) for used in node.uses()):
                once[reg] = node
        return cls(once)

    def made(self, value: Operand | Base) -> Node | None:
        """The instruction whose result this is, its operands still unchanged."""
        if not isinstance(value, Reg):
            return None
        return self.here.get(value) or self.once.get(value)

    def copy(self, reg: Reg) -> Operand:
        """The constant or the original this register is a copy of, else itself."""
        value: Operand = reg
        for _ in range(MAX_COPIES):  # code that is never reached may copy in circles
            node = self.made(value)
            if not isinstance(node, Move):
                break
            value = node.src
        return value

    def after(self, node: Node) -> None:
        """Take note of what the instruction changes."""
        if isinstance(node, Label):
            self.here.clear()
            self.readers.clear()
        dst = node.defines()
        if dst is None:
            return
        here = self.here
        here.pop(dst, None)
        for reg in self.readers.pop(dst, ()):
            here.pop(reg, None)
        used = node.uses()
        if dst not in used:
            here[dst] = node
            for reg in used:
                self.readers.setdefault(reg, set()).add(dst)


def walk(code: Code, change: Callable[[Node, Facts], Node | None]) -> Code:
    """Replace each instruction by what ``change`` makes of it; None drops it."""
    facts = Facts.of(code)
    out: Code = []
    for node in code:
        new = change(node, facts)
        if new is not None:
            out.append(new)
            facts.after(new)
    return out


def width(value: Operand, facts: Facts, depth: int = 4) -> int:  # noqa: PLR0911 - a table
    """At most so many low bits of the value can be set, and the verifier knows it (it does not
    for byte swaps)."""
    if isinstance(value, int):
        return arithmetic.unsigned(value).bit_length()
    if depth == 0:
        return 64
    made = facts.made(value)
    match made:
        case Load(signed=False) | Extend(signed=False):
            return 8 * made.size
        case Move() if depth:
            return width(made.src, facts, depth - 1)
        case Binary(op="and") if depth:
            left, right = made.left, made.right
            return min(width(left, facts, depth - 1), width(right, facts, depth - 1))
        case Binary(op="or" | "xor") if depth:
            left, right = made.left, made.right
            return max(width(left, facts, depth - 1), width(right, facts, depth - 1))
        case Binary(op="add") if depth:
            left, right = made.left, made.right
            return min(64, max(width(left, facts, depth - 1), width(right, facts, depth - 1)) + 1)
        case Binary(op="lsh", right=int() as shift) if depth:
            return min(64, width(made.left, facts, depth - 1) + (shift & 63))
        case Binary(op="rsh", right=int() as shift) if depth:
            return max(0, width(made.left, facts, depth - 1) - (shift & 63))
        case Binary(op=op) if op in COMPARISONS:
            return 1
        case _:
            return 64
