"""Offsets instead of additions to pointers."""

from __future__ import annotations

from typing import cast

from bazaar.bpf import arithmetic
from bazaar.bpf.ir import (
    AddressOf,
    AtomicAdd,
    Base,
    Binary,
    Call,
    CallKernel,
    Load,
    Memory,
    Node,
    Operand,
    Reg,
    Slot,
    Store,
)
from bazaar.bpf.passes.facts import Code, Facts, walk
from bazaar.model.record import replace

OFFSETS = range(-(1 << 15), 1 << 15)


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

    return walk(code, change)


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
