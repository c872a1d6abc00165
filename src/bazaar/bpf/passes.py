"""The passes over the IR, in one list; `optimise` runs it until nothing changes.

Each takes a list of instructions and gives a new one that means the same. With the environment
variable `BAZAAR_BPF_CHECK` set, `bazaar.bpf.legal` checks the code after each of them.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import cast

from bazaar.bpf import arithmetic
from bazaar.bpf.flow import blocks, liveness
from bazaar.bpf.ir import (
    COMMUTATIVE,
    COMPARISONS,
    INVERSE,
    AddressOf,
    AtomicAdd,
    Base,
    Binary,
    Branch,
    ByteSwap,
    Call,
    CallKernel,
    Comparison,
    Extend,
    Function,
    Jump,
    Label,
    Load,
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

Code = list[Node]
MAX_ROUNDS = 8
MAX_COPIES = 64
OFFSETS = range(-(1 << 15), 1 << 15)


@dataclass(slots=True)
class Facts:
    """What is known of registers while walking the code from its start.

    ``once`` holds what registers written exactly once are: true everywhere the register may be
    read, as long as what it is made of is written once too. ``here`` holds what is true since
    the last label.
    """

    once: dict[Reg, Node]
    here: dict[Reg, Node] = field(default_factory=dict[Reg, Node])
    readers: dict[Reg, set[Reg]] = field(default_factory=dict[Reg, "set[Reg]"])

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


def _walk(code: Code, change: Callable[[Node, Facts], Node | None]) -> Code:
    """Replace each instruction by what ``change`` makes of it; None drops it."""
    facts = Facts.of(code)
    out: Code = []
    for node in code:
        new = change(node, facts)
        if new is not None:
            out.append(new)
            facts.after(new)
    return out


def propagate(code: Code) -> Code:
    """Read the original instead of a copy, the constant instead of a register holding it."""

    def change(node: Node, facts: Facts) -> Node:
        for reg in node.uses():
            if facts.copy(reg) is not reg:
                return node.substitute(facts.copy)
        return node

    return _walk(code, change)


def fold(code: Code) -> Code:
    """Compute what is constant; drop what does nothing; constants stand on the right."""
    return _walk(code, _fold)


def _fold(node: Node, facts: Facts) -> Node | None:  # noqa: PLR0911 - one case a rewrite
    match node:
        case Move(dst=dst, src=src) if dst is src:
            return None
        case Binary():
            return _fold_binary(node, facts)
        case Unary(src=int() as value):
            value = -value if node.op == "neg" else ~value
            return Move(node.dst, arithmetic.unsigned(value), line=node.line)
        case Extend(src=int() as value):
            value = arithmetic.extend(value, node.size, sign=node.signed)
            return Move(node.dst, value, line=node.line)
        case ByteSwap(src=int() as value):
            return Move(node.dst, arithmetic.byte_swap(value, node.size), line=node.line)
        case ByteSwap():
            made = facts.made(node.src)
            if isinstance(made, ByteSwap) and made.size == node.size:
                return Extend(node.dst, made.src, node.size, line=node.line)
            return node
        case Branch(left=int() as left, right=int() as right):
            jump = arithmetic.holds(node.op, left, right)
            return Jump(node.to, line=node.line) if jump else None
        case _:
            return node


_ZERO_IS_SELF = {"add", "sub", "or", "xor", "lsh", "rsh", "arsh"}
_ONE_IS_SELF = {"mul", "div"}
_SAME: dict[str, int] = {
    "sub": 0, "xor": 0, "eq": 1, "le": 1, "ge": 1, "sle": 1, "sge": 1,
    "ne": 0, "lt": 0, "gt": 0, "slt": 0, "sgt": 0,
}  # fmt: skip


def _fold_binary(node: Binary, facts: Facts) -> Node:  # noqa: PLR0911 - one rule a return
    left, right, op = node.left, node.right, node.op

    def give(value: Operand) -> Node:
        return Move(node.dst, value, line=node.line)

    if isinstance(left, int) and isinstance(right, int):
        return give(arithmetic.binary(op, left, right))
    if isinstance(left, int) and op in COMMUTATIVE:
        return Binary(node.dst, op, right, left, line=node.line)
    if left is right and op in _SAME:
        return give(_SAME[op])
    if not isinstance(right, int):
        return node
    right = arithmetic.unsigned(right)
    if (right == 0 and op in _ZERO_IS_SELF) or (right == 1 and op in _ONE_IS_SELF):
        return give(left)
    if (right == 0 and op in {"mul", "and", "div", "sdiv"}) or (right == 1 and op == "mod"):
        return give(0)
    if (right == arithmetic.WORD and op == "and") or (right == 0 and op in {"mod", "smod"}):
        return give(left)
    made = facts.made(left)
    if (
        op in {"add", "and", "or", "xor"}
        and isinstance(made, Binary)
        and made.op == op
        and isinstance(made.right, int)
    ):
        both = arithmetic.signed(arithmetic.binary(op, made.right, right))
        return Binary(node.dst, op, made.left, both, line=node.line)
    return node


def reduce_strength(code: Code) -> Code:
    """Shifts and masks instead of multiplying and dividing by powers of two."""

    def change(node: Node, facts: Facts) -> Node:
        del facts
        if not isinstance(node, Binary) or not isinstance(node.right, int):
            return node
        value = arithmetic.unsigned(node.right)
        if value == 0 or value & (value - 1):
            return node
        shift = value.bit_length() - 1
        match node.op:
            case "mul":
                return Binary(node.dst, "lsh", node.left, shift, line=node.line)
            case "div":
                return Binary(node.dst, "rsh", node.left, shift, line=node.line)
            case "mod":
                return Binary(node.dst, "and", node.left, value - 1, line=node.line)
            case _:
                return node

    return _walk(code, change)


def narrow(code: Code) -> Code:
    """Drop zero-extensions, masks and bounds checks of what is known to be small already."""

    def change(node: Node, facts: Facts) -> Node | None:  # noqa: PLR0911 - one case a rewrite
        match node:
            case Extend(signed=False) if _width(node.src, facts) <= 8 * node.size:
                return Move(node.dst, node.src, line=node.line)
            case Extend(size=8):
                return Move(node.dst, node.src, line=node.line)
            case Store(size=size) if size < 8:
                made = facts.made(node.value) if isinstance(node.value, Reg) else None
                if isinstance(made, Extend) and made.size >= size:
                    return replace(node, value=made.src)
                return node
            case Branch(op="gt", left=Reg() as left, right=int() as right) if (
                _width(left, facts) < 63 and (1 << _width(left, facts)) - 1 <= right
            ):
                return None
            case Binary(op="and", right=int() as mask) if (
                (mask & (mask + 1)) == 0
                and mask > 0
                and _width(node.left, facts) <= mask.bit_length()
            ):
                return Move(node.dst, node.left, line=node.line)
            case Extend():
                made = facts.made(node.src)
                if isinstance(made, Extend) and made.size >= node.size:
                    return replace(node, src=made.src)
                return node
            case _:
                return node

    return _walk(code, change)


def _width(value: Operand, facts: Facts, depth: int = 4) -> int:  # noqa: PLR0911 - a table
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
            return _width(made.src, facts, depth - 1)
        case Binary(op="and") if depth:
            left, right = made.left, made.right
            return min(_width(left, facts, depth - 1), _width(right, facts, depth - 1))
        case Binary(op="or" | "xor") if depth:
            left, right = made.left, made.right
            return max(_width(left, facts, depth - 1), _width(right, facts, depth - 1))
        case Binary(op="add") if depth:
            left, right = made.left, made.right
            return min(64, max(_width(left, facts, depth - 1), _width(right, facts, depth - 1)) + 1)
        case Binary(op="lsh", right=int() as shift) if depth:
            return min(64, _width(made.left, facts, depth - 1) + (shift & 63))
        case Binary(op="rsh", right=int() as shift) if depth:
            return max(0, _width(made.left, facts, depth - 1) - (shift & 63))
        case Binary(op=op) if op in COMPARISONS:
            return 1
        case _:
            return 64


def addresses(code: Code) -> Code:
    """Constant additions to a pointer become the offset of the access."""

    def change(node: Node, facts: Facts) -> Node:
        match node:
            case Load() | Store() | AtomicAdd():
                base, offset = _base(node.base, node.offset, facts)
                return node if base is node.base else replace(node, base=base, offset=offset)
            case AddressOf():
                base, offset = _base(node.memory.base, node.memory.offset, facts)
                if base is node.memory.base:
                    return node
                return replace(node, memory=Memory(base, offset))
            case Call() | CallKernel():
                arguments = tuple(
                    Memory(*_base(value.base, value.offset, facts))
                    if isinstance(value, Memory)
                    else _slot_address(value, facts)
                    for value in node.arguments
                )
                return node if arguments == node.arguments else replace(node, arguments=arguments)
            case _:
                return node

    return _walk(code, change)


def _base(base: Base, offset: int, facts: Facts) -> tuple[Base, int]:
    made = facts.made(base)
    if isinstance(made, AddressOf):
        new, total = made.memory.base, made.memory.offset + offset
    elif (
        isinstance(made, Binary)
        and made.op == "add"
        and isinstance(made.left, Reg)
        and isinstance(made.right, int)
    ):
        new, total = made.left, arithmetic.signed(made.right) + offset
    else:
        return base, offset
    return _base(new, total, facts) if total in OFFSETS else (base, offset)


def _slot_address(value: object, facts: Facts) -> Operand | Memory:
    """The address of a slot is made where it is needed: it costs two instructions, no register."""
    made = facts.made(value) if isinstance(value, Reg) else None
    if isinstance(made, AddressOf) and isinstance(made.memory.base, Slot):
        return made.memory
    return cast("Operand", value)


def share(code: Code) -> Code:
    """Compute the same thing once, between labels and calls."""
    out: Code = []
    known: dict[Computation, tuple[Reg, tuple[Reg, ...]]] = {}
    for node in code:
        if isinstance(node, (Label, Call, CallKernel)):
            known.clear()
        elif isinstance(node, (Store, AtomicAdd)):
            known = {key: made for key, made in known.items() if key[0] is not Load}
        dst = node.defines()
        if dst is None:
            out.append(node)
            continue
        key = _computation(node)
        same = known.get(key) if key is not None else None
        out.append(node if same is None else Move(dst, same[0], line=node.line))
        known = {k: made for k, made in known.items() if made[0] is not dst and dst not in made[1]}
        used = node.uses()
        if key is not None and same is None and dst not in used:
            known[key] = (dst, used)
    return out


Computation = tuple[object, ...]


def _computation(node: Node) -> Computation | None:
    """What is computed, without where it goes; None for what is not worth sharing."""
    match node:
        case Binary():
            return (Binary, node.op, node.left, node.right)
        case Load():
            return (Load, node.base, node.offset, node.size, node.signed)
        case Unary():
            return (Unary, node.op, node.src)
        case Extend():
            return (Extend, node.src, node.size, node.signed)
        case ByteSwap():
            return (ByteSwap, node.src, node.size)
        case _:
            return None


def fuse(code: Code) -> Code:
    """Branch on the comparison itself, not on its result; test bits in the branch; compare what
    is in the network's byte order with a constant in that order."""

    def change(node: Node, facts: Facts) -> Node:  # noqa: PLR0911 - one case a rewrite
        match node:
            case Branch(op="eq" | "ne", left=Reg() as left, right=0):
                made = facts.made(left)
                if isinstance(made, Binary) and made.op in COMPARISONS:
                    op = cast("Comparison", made.op)
                    op = op if node.op == "ne" else INVERSE[op]
                    return Branch(op, made.left, made.right, node.to, line=node.line)
                if isinstance(made, Binary) and made.op == "and" and node.op == "ne":
                    return Branch("set", made.left, made.right, node.to, line=node.line)
                return node
            case Branch(op="eq" | "ne", left=Reg() as left, right=int() as right):
                made = facts.made(left)
                if isinstance(made, ByteSwap) and _width(made.src, facts) <= 8 * made.size:
                    if right >> 8 * made.size:  # a number that cannot be there
                        return node
                    right = arithmetic.byte_swap(right, made.size)
                    return Branch(node.op, made.src, right, node.to, line=node.line)
                return node
            case Binary(op="eq" | "ne", left=Reg() as left, right=0):
                made = facts.made(left)
                if isinstance(made, Binary) and made.op in COMPARISONS:
                    op = cast("Comparison", made.op)
                    op = op if node.op == "ne" else cast("Comparison", INVERSE[op])
                    return Binary(node.dst, op, made.left, made.right, line=node.line)
                return node
            case _:
                return node

    return _walk(code, change)


def thread(code: Code) -> Code:
    """Jumps go where they end up; what is never reached, and jumps to the next place, go."""
    return _drop_unreachable(_drop_jumps(_retarget(code)))


def _retarget(code: Code) -> Code:
    goes: dict[str, str] = {}
    returns: dict[str, Return] = {}
    waiting: list[str] = []
    for node in code:
        if isinstance(node, Label):
            waiting.append(node.name)
            continue
        for name in waiting:
            if isinstance(node, Jump):
                goes[name] = node.to
            elif isinstance(node, Return):
                returns[name] = node
        waiting = []

    def end(label: str) -> str:
        seen = {label}
        while label in goes and goes[label] not in seen:
            label = goes[label]
            seen.add(label)
        return label

    out: Code = []
    for node in code:
        if isinstance(node, (Jump, Branch)):
            to = end(node.to)
            if isinstance(node, Jump) and to in returns:
                out.append(returns[to])
                continue
            node = node if to == node.to else replace(node, to=to)
        out.append(node)
    return out


def _drop_jumps(code: Code) -> Code:
    out: Code = []
    for index, node in enumerate(code):
        if isinstance(node, (Jump, Branch)) and _follows(code, index + 1, node.to):
            continue
        previous = out[-1] if out else None
        if (
            isinstance(node, Jump)
            and isinstance(previous, Branch)
            and previous.op in INVERSE
            and _follows(code, index + 1, previous.to)
        ):
            out[-1] = replace(previous, op=INVERSE[previous.op], to=node.to)
            continue
        out.append(node)
    return out


def _follows(code: Code, index: int, label: str) -> bool:
    while index < len(code):
        node = code[index]
        if not isinstance(node, Label):
            return False
        if node.name == label:
            return True
        index += 1
    return False


def _drop_unreachable(code: Code) -> Code:
    found = blocks(code)
    reached: set[int] = set()
    waiting = [0] if found else []
    while waiting:
        number = waiting.pop()
        if number not in reached:
            reached.add(number)
            waiting.extend(found[number].successors)
    out: Code = []
    for number in sorted(reached):
        out.extend(code[found[number].start : found[number].end])
    wanted = {node.target for node in out}
    return [node for node in out if not isinstance(node, Label) or node.name in wanted]


def drop_dead(code: Code) -> Code:
    """Drop what computes a value nobody reads."""
    live = liveness(code)
    keep = [True] * len(code)
    for number, block in enumerate(live.blocks):
        now = live.live_out[number]
        for index in range(block.end - 1, block.start - 1, -1):
            node = code[index]
            dst = node.defines()
            if dst is not None:
                bit = live.bits[dst]
                if node.pure and not now & bit:
                    keep[index] = False
                    continue
                now &= ~bit
            for reg in node.uses():
                now |= live.bits[reg]
    return [node for index, node in enumerate(code) if keep[index]]


PASSES: tuple[tuple[str, Callable[[Code], Code]], ...] = (
    ("propagate copies and constants", propagate),
    ("fold constants", fold),
    ("reduce strength", reduce_strength),
    ("drop extensions", narrow),
    ("fold addresses", addresses),
    ("share computations", share),
    ("fuse compare and branch", fuse),
    ("thread jumps", thread),
    ("drop dead code", drop_dead),
)
"""Every pass by its name, in the order they run."""


def optimise(function: Function, *, check: bool | None = None) -> Function:
    """Run all passes until none changes anything.

    ``check`` (default: environment variable `BAZAAR_BPF_CHECK`) checks legality after each.
    """
    if check is None:
        check = bool(os.environ.get("BAZAAR_BPF_CHECK"))
    code: Code = list(function.code)
    if check:
        _check(function, code, "lowering")
    for _ in range(MAX_ROUNDS):
        before = code
        for name, run in PASSES:
            code = run(code)
            if check:
                _check(function, code, name)
        if len(code) == len(before) and all(map(operator.is_, code, before)):
            break
    return replace(function, code=tuple(code))


def _check(function: Function, code: Code, name: str) -> None:
    from bazaar.bpf.legal import check

    check(replace(function, code=tuple(code)), after=name)
