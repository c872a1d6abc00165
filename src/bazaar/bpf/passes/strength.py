"""Cheaper instructions for multiplying and dividing."""

from __future__ import annotations

from bazaar.bpf import arithmetic
from bazaar.bpf.ir import Binary, Node
from bazaar.bpf.passes.facts import Code, Facts, walk


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

    return walk(code, change)
