"""Control flow and liveness of IR code: blocks, successors, what is live where."""

from __future__ import annotations

from collections.abc import Sequence

from bazaar.bpf.ir import Branch, Jump, Label, Node, Reg, Return
from bazaar.model.record import record


@record
class Block:
    """Instructions start ≤ i < end run one after the other; successors by block number."""

    start: int
    end: int
    successors: tuple[int, ...]


def blocks(code: Sequence[Node]) -> list[Block]:
    """The basic blocks in the order of the code."""
    starts = [0] if code else []
    for index, node in enumerate(code):
        if (isinstance(node, Label) and starts[-1] != index) or (
            index and starts[-1] != index and isinstance(code[index - 1], (Branch, Jump, Return))
        ):
            starts.append(index)
    ends = [*starts[1:], len(code)]
    labels: dict[str, int] = {}
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for node in code[start:end]:
            if not isinstance(node, Label):
                break
            labels[node.name] = number
    found: list[Block] = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        last = code[end - 1]
        following = () if number + 1 == len(starts) else (number + 1,)
        if isinstance(last, Jump):
            following = (labels[last.to],)
        elif isinstance(last, Branch):
            following = (*following, labels[last.to])
        elif isinstance(last, Return):
            following = ()
        found.append(Block(start, end, following))
    return found


@record
class Liveness:
    """Registers as bits: ``bits[reg]`` is one bit, ``live_out[block]`` the or of them."""

    blocks: list[Block]
    registers: list[Reg]
    bits: dict[Reg, int]
    live_in: list[int]
    live_out: list[int]


def liveness(code: Sequence[Node]) -> Liveness:
    """Which registers are read later, at the end of each block."""
    found = blocks(code)
    registers: list[Reg] = []
    bits: dict[Reg, int] = {}
    reads: list[int] = []
    writes: list[int] = []
    for block in found:
        read = written = 0
        for index in range(block.start, block.end):
            node = code[index]
            for reg in node.uses():
                bit = bits.get(reg)
                if bit is None:
                    bit = bits[reg] = 1 << len(registers)
                    registers.append(reg)
                if not written & bit:
                    read |= bit
            reg = node.defines()
            if reg is not None:
                bit = bits.get(reg)
                if bit is None:
                    bit = bits[reg] = 1 << len(registers)
                    registers.append(reg)
                written |= bit
        reads.append(read)
        writes.append(written)
    live_in = [0] * len(found)
    live_out = [0] * len(found)
    changed = True
    while changed:
        changed = False
        for number in range(len(found) - 1, -1, -1):
            out = 0
            for successor in found[number].successors:
                out |= live_in[successor]
            into = reads[number] | out & ~writes[number]
            if out != live_out[number] or into != live_in[number]:
                live_out[number], live_in[number] = out, into
                changed = True
    return Liveness(found, registers, bits, live_in, live_out)


def without_dead(code: Sequence[Node], live: Liveness) -> list[Node]:
    """The code without what computes a value nobody reads; ``live`` is the code's liveness."""
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


def depths(code: Sequence[Node]) -> list[int]:
    """How many loops surround each instruction, by backward jumps."""
    labels = {node.name: index for index, node in enumerate(code) if isinstance(node, Label)}
    steps = [0] * (len(code) + 1)
    for index, node in enumerate(code):
        target = node.target
        if target is not None and labels[target] < index:
            steps[labels[target]] += 1
            steps[index + 1] -= 1
    found: list[int] = []
    depth = 0
    for step in steps[:-1]:
        depth += step
        found.append(depth)
    return found
