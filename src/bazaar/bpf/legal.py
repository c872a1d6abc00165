"""What is legal IR, as a table of rules; tests check it between the passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bazaar.bpf.flow import liveness
from bazaar.bpf.ir import (
    AtomicAdd,
    Branch,
    Call,
    CallKernel,
    Function,
    Jump,
    Label,
    Load,
    Return,
    Slot,
    Store,
    show,
)
from bazaar.errors import CompileError


def _labels(function: Function) -> Iterator[str]:
    names = [node.name for node in function.code if isinstance(node, Label)]
    yield from (f"label {name} stands twice" for name in set(names) if names.count(name) > 1)
    for node in function.code:
        if node.target is not None and node.target not in names:
            yield f"jump to {node.target}, which stands nowhere"


def _ends(function: Function) -> Iterator[str]:
    if not function.code or not isinstance(function.code[-1], (Return, Jump)):
        yield "the code runs past its end"


def _written(function: Function) -> Iterator[str]:
    live = liveness(function.code)
    entry = live.live_in[0]
    for reg in live.registers:
        if entry & live.bits[reg] and reg is not function.context:
            yield f"{reg!r} may be read before it is written"


def _accesses(function: Function) -> Iterator[str]:
    for node in function.code:
        if isinstance(node, (Load, Store, AtomicAdd)):
            if node.size not in ((4, 8) if isinstance(node, AtomicAdd) else (1, 2, 4, 8)):
                yield f"size {node.size} in{show(node)}"
            if not -(1 << 15) <= node.offset < 1 << 15:
                yield f"offset beyond 16 bits in{show(node)}"
            slot = node.base
            if isinstance(slot, Slot) and not 0 <= node.offset <= slot.size - node.size:
                yield f"outside of its slot:{show(node)}"
            if isinstance(slot, Slot) and node.offset % min(node.size, slot.align):
                yield f"not aligned:{show(node)}"


def _calls(function: Function) -> Iterator[str]:
    for node in function.code:
        if isinstance(node, (Call, CallKernel)) and len(node.arguments) > 5:
            yield f"more than five arguments:{show(node)}"


def _immediates(function: Function) -> Iterator[str]:
    for node in function.code:
        if (
            isinstance(node, Branch)
            and isinstance(node.left, int)
            and node.left >> 64 not in {0, -1}
        ):
            yield f"more than 64 bits in{show(node)}"


Rule = Callable[[Function], Iterator[str]]
RULES: tuple[tuple[str, Rule], ...] = (
    ("labels stand once and where jumps go", _labels),
    ("the last instruction ends the program", _ends),
    ("registers are written before they are read", _written),
    ("memory accesses are in bounds and aligned", _accesses),
    ("calls have at most five arguments", _calls),
    ("constants have at most 64 bits", _immediates),
)
"""Every rule by its name."""


def problems(function: Function) -> list[str]:
    """What is wrong with the function, empty when it is legal."""
    found: list[str] = []
    for _, rule in RULES:
        found += rule(function)
        if found:  # later rules take the earlier ones for granted
            break
    return found


def check(function: Function, *, after: str) -> None:
    """CompileError when the code is not legal: a mistake of the pass named, not of the user."""
    found = problems(function)
    if found:
        raise CompileError(f"illegal code after '{after}': {'; '.join(found)}\n{function}")
