"""Comparisons and the branches on their results."""

from __future__ import annotations

from typing import cast

from bazaar.bpf import arithmetic
from bazaar.bpf.ir import COMPARISONS, INVERSE, Binary, Branch, ByteSwap, Comparison, Node, Reg
from bazaar.bpf.passes.facts import Code, Facts, walk, width


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
                if isinstance(made, ByteSwap) and width(made.src, facts) <= 8 * made.size:
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

    return walk(code, change)
