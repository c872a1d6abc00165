"""What fields, elements and operators give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bazaar.trace import tree
from bazaar.trace.types import (
    NUMBER,
    UNSIGNED,
    Array,
    Container,
    Int,
    Pointer,
    Record,
    Text,
    Type,
    is_number,
    name_of,
    unify,
)

if TYPE_CHECKING:
    from bazaar.trace.check import Checker


def field(checker: Checker, node: tree.Field) -> Type:
    """What `args.NAME` is."""
    if not isinstance(checker.of(node.of), Record):
        checker.fail(f"{tree.expression(node.of)} has no fields", node)
    event = checker.unit.point.event
    found = event.field(node.name) if event else None
    if event is None or found is None:
        name = event.name if event else checker.unit.point.text
        has = (
            ", ".join(one.name for one in event.fields if not one.name.startswith("__"))
            if event
            else ""
        )
        checker.fail(
            f"unknown field '{node.name}' of {name}. It has: {has or 'no fields'}",
            node.name_span,
        )
    return found.type


def index(checker: Checker, node: tree.Index) -> Type:  # noqa: RET503 - fail() does not return
    """What an element of an array, or of what a pointer leads to, is."""
    kind = checker.of(node.of)
    index = checker.of(node.index)
    checker.need_number(index, node.index, "[]")
    if isinstance(kind, Array):
        position = checker.constant(node.index, "an array's index")
        if not 0 <= position < kind.count:
            checker.fail(
                f"the index is {position}, and the array has {kind.count} elements", node.index
            )
        return Int(kind.signed)
    if isinstance(kind, Pointer) and kind.element is not None:
        return kind.element
    checker.fail(f"a value of type {name_of(kind)} has no elements", node)


def operation(checker: Checker, node: tree.Unary | tree.Binary | tree.Ternary) -> Type:
    """What an operator gives."""
    match node:
        case tree.Unary(operator=operator, operand=operand):
            kind = checker.of(operand)
            checker.need_number(kind, operand, operator)
            neutral = isinstance(kind, Int) and kind.neutral and operator == "~"
            # -1 is signed for sure.
            return (
                NUMBER
                if operator == "!"
                else Int(not isinstance(kind, Int) or kind.signed or operator == "-", neutral)
            )
        case tree.Ternary(condition=condition, then=then, otherwise=otherwise):
            checker.condition(condition)
            one, two = checker.of(then), checker.of(otherwise)
            merged = unify(one, two)
            if merged is None or not isinstance(merged, Int | Text | Pointer | Container):
                checker.fail(
                    f"both sides of '?:' must be of one type: got '{one}' and '{two}'", node
                )
            return merged
        case tree.Binary(operator=operator, left=left, right=right):
            one, two = checker.of(left), checker.of(right)
            if operator in ("==", "!=") and isinstance(one, Text) and isinstance(two, Text):
                return NUMBER
            if not is_number(one) or not is_number(two):
                if operator in ("==", "!=", "<", ">", "<=", ">=") and isinstance(
                    one, Text
                ) != isinstance(two, Text):
                    checker.fail(
                        f"Type mismatch for '{operator}': comparing '{one}' with '{two}'", node
                    )
                checker.fail(
                    f"The {operator} operator can not be used on expressions of types "
                    f"{name_of(one)}, {name_of(two)}",
                    node,
                )
            return binary_type(operator, one, two)


def binary_type(operator: str, one: Type, two: Type) -> Int:
    """The type of an operation on two numbers: C's rules for 64 bits."""
    if operator in ("==", "!=", "<", ">", "<=", ">=", "&&", "||"):
        return NUMBER
    left, right = (kind if isinstance(kind, Int) else UNSIGNED for kind in (one, two))
    if operator in ("<<", ">>"):
        return left
    if left.neutral != right.neutral:
        return Int((right if left.neutral else left).signed)
    return Int(left.signed and right.signed, left.neutral and right.neutral)
