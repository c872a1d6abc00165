"""Shorter ways through the code."""

from __future__ import annotations

from bazaar.bpf.flow import blocks
from bazaar.bpf.ir import INVERSE, Branch, Jump, Label, Return
from bazaar.bpf.passes.facts import Code
from bazaar.model.record import replace


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
