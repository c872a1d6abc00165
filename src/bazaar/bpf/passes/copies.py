"""Reading originals instead of copies."""

from __future__ import annotations

from bazaar.bpf.ir import Node
from bazaar.bpf.passes.facts import Code, Facts, walk


def propagate(code: Code) -> Code:
    """Read the original instead of a copy, the constant instead of a register holding it."""

    def change(node: Node, facts: Facts) -> Node:
        for reg in node.uses():
            if facts.copy(reg) is not reg:
                return node.substitute(facts.copy)
        return node

    return walk(code, change)
