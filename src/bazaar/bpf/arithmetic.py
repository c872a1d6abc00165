"""What the IR's operators compute: the one place that says so, for folding and interpreting."""

from __future__ import annotations

import operator
from collections.abc import Callable

from bazaar.bpf.ir import BinaryOp, Condition

BITS = 64
WORD = (1 << BITS) - 1


def unsigned(value: int) -> int:
    """The value as a 64-bit register holds it."""
    return value & WORD


def signed(value: int, size: int = 8) -> int:
    """The low ``size`` bytes as a signed number."""
    value &= (1 << 8 * size) - 1
    return value - (1 << 8 * size) if value >> (8 * size - 1) else value


def extend(value: int, size: int, *, sign: bool) -> int:
    """The low ``size`` bytes, sign- or zero-extended to 64 bits."""
    return unsigned(signed(value, size)) if sign else value & ((1 << 8 * size) - 1)


def byte_swap(value: int, size: int) -> int:
    """The low ``size`` bytes in reverse order."""
    return int.from_bytes(extend(value, size, sign=False).to_bytes(size, "little"), "big")


def binary(op: BinaryOp, left: int, right: int) -> int:
    """left op right as BPF computes it on 64 bits."""
    left, right = unsigned(left), unsigned(right)
    match op:
        case "add":
            value = left + right
        case "sub":
            value = left - right
        case "mul":
            value = left * right
        case "and":
            value = left & right
        case "or":
            value = left | right
        case "xor":
            value = left ^ right
        case "lsh":
            value = left << (right & 63)
        case "rsh":
            value = left >> (right & 63)
        case "arsh":
            value = signed(left) >> (right & 63)
        case "div" | "mod" | "sdiv" | "smod":
            value = _divide(op, left, right)
        case _:
            value = int(holds(op, left, right))
    return unsigned(value)


def _divide(op: str, left: int, right: int) -> int:
    if right == 0:
        return 0 if op in {"div", "sdiv"} else left
    if op in {"div", "mod"}:
        return left // right if op == "div" else left % right
    first, second = signed(left), signed(right)
    quotient = abs(first) // abs(second)
    if (first < 0) != (second < 0):
        quotient = -quotient
    return quotient if op == "sdiv" else first - quotient * second


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "set": lambda left, right: bool(left & right),
}  # fmt: skip


def holds(op: Condition, left: int, right: int) -> bool:
    """Whether the condition holds."""
    left, right = unsigned(left), unsigned(right)
    if op in {"slt", "sle", "sgt", "sge"}:
        return _COMPARE[op[1:]](signed(left), signed(right))
    return _COMPARE[op](left, right)
