"""Computing what is known while compiling."""

from __future__ import annotations

from bazaar.bpf import arithmetic
from bazaar.bpf.ir import (
    COMMUTATIVE,
    Binary,
    Branch,
    ByteSwap,
    Extend,
    Jump,
    Move,
    Node,
    Operand,
    Unary,
)
from bazaar.bpf.passes.facts import Code, Facts, walk


def fold(code: Code) -> Code:
    """Compute what is constant; drop what does nothing; constants stand on the right."""
    return walk(code, _fold)


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
