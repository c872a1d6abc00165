"""Computing the same thing once."""

from __future__ import annotations

from bazaar.bpf.ir import (
    AtomicAdd,
    Binary,
    ByteSwap,
    Call,
    CallKernel,
    Extend,
    Label,
    Load,
    Move,
    Node,
    Reg,
    Store,
    Unary,
)
from bazaar.bpf.passes.facts import Code

Computation = tuple[object, ...]


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
