"""Extensions, masks and checks that change nothing."""

from __future__ import annotations

from bazaar.bpf.ir import Binary, Branch, Extend, Move, Node, Reg, Store
from bazaar.bpf.passes.facts import Code, Facts, walk, width
from bazaar.model.record import replace


def narrow(code: Code) -> Code:
    """Drop zero-extensions, masks and bounds checks of what is known to be small already."""

    def change(node: Node, facts: Facts) -> Node | None:  # noqa: PLR0911 - one case a rewrite
        match node:
            case Extend(signed=False) if width(node.src, facts) <= 8 * node.size:
                return Move(node.dst, node.src, line=node.line)
            case Extend(size=8):
                return Move(node.dst, node.src, line=node.line)
            case Store(size=size) if size < 8:
                made = facts.made(node.value) if isinstance(node.value, Reg) else None
                if isinstance(made, Extend) and made.size >= size:
                    return replace(node, value=made.src)
                return node
            case Branch(op="gt", left=Reg() as left, right=int() as right) if (
                width(left, facts) < 63 and (1 << width(left, facts)) - 1 <= right
            ):
                return None
            case Binary(op="and", right=int() as mask) if (
                (mask & (mask + 1)) == 0
                and mask > 0
                and width(node.left, facts) <= mask.bit_length()
            ):
                return Move(node.dst, node.left, line=node.line)
            case Extend():
                made = facts.made(node.src)
                if isinstance(made, Extend) and made.size >= node.size:
                    return replace(node, src=made.src)
                return node
            case _:
                return node

    return walk(code, change)
