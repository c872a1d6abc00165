"""Values in memory: types, stack slots, structs, writing fields and elements."""

from __future__ import annotations

import ast
import typing
from typing import Any, cast

from bazaar.bpf.ir import Memory, Reg
from bazaar.bpf.python.conditions import Conditions
from bazaar.bpf.python.types import (
    ArrayType,
    Layout,
    Scalar,
    Struct,
    StructType,
    layout_of,
    struct_type,
)
from bazaar.bpf.python.values import NONE, Constant, Number, Value, View
from bazaar.errors import UsageError


class Storage(Conditions):
    """Compiles what lies in memory."""

    def arguments(self, node: ast.Call, least: int, most: int | None = None) -> list[ast.expr]:
        """The positional arguments, as many as there must be."""
        most = least if most is None else most
        if node.keywords:
            raise self.error(node, "arguments are given by position here")
        if not least <= len(node.args) <= most:
            raise self.error(
                node, f"{least} to {most} arguments are wanted, {len(node.args)} are given"
            )
        return node.args

    def layout(self, node: ast.expr) -> Layout:
        """A type written in the program."""
        try:
            made = eval(  # noqa: S307 - the user's own program text, in its own names
                compile(ast.Expression(node), self.frame.source.file, "eval"),
                self.frame.source.names,
            )
            if isinstance(made, str):
                made = eval(made, self.frame.source.names)  # noqa: S307
            return layout_of(without_none(made))
        except (UsageError, NameError, TypeError, AttributeError) as error:
            raise self.error(
                node, f"'{ast.unparse(node)}' is no type of a compiled program: {error}"
            ) from error

    def cast(self, node: ast.Call, target: ast.expr, value_node: ast.expr) -> Value:
        """``truncate(x, u32)`` cuts to the type; ``cast(Header, view)`` changes what a view is."""
        layout = self.layout(target)
        value = self.expression(value_node)
        if isinstance(layout, Scalar):
            number = self.number(value_node) if not isinstance(value, Number) else value
            if layout.size == 8:
                return Number(number.operand, layout.signed)
            result = self.b.extend(number.operand, layout.size, signed=layout.signed)
            return Number(result, True if layout.signed else None)
        if isinstance(value, View):
            return View(layout, value.memory, value.nullable)
        if isinstance(value, Number) and isinstance(value.operand, Reg):
            # A helper's or kfunc's result that is an address, or 0.
            return View(layout, Memory(value.operand), nullable=True)
        raise self.error(node, "only an address can become a struct")

    def key(self, layout: Layout, node: ast.expr, *, second: bool = False) -> Memory:
        """The argument's bytes in memory: integers are written to the stack first."""
        value = self.expression(node)
        if isinstance(value, View) and value.layout == layout:
            return value.memory
        if isinstance(layout, Scalar) and not isinstance(value, Constant):
            number = value if isinstance(value, Number) else self.number(node)
            place = self.temporary(layout.size, second=second)
            self.write(node, View(layout, place), number)
            return place
        if isinstance(value, View) and value.layout.size == layout.size:
            return value.memory
        raise self.error(node, "of another type than the map's")

    def temporary(self, size: int, *, second: bool = False) -> Memory:
        """A stack slot that holds a value during one call only."""
        number = size + (1000 if second else 0)
        if number not in self.keys:
            self.keys[number] = self.b.slot(size, min(size, 8))
        return self.keys[number]

    def write(self, node: ast.AST, to: View, value: Value) -> None:
        """Store into a field, an element or a whole struct."""
        layout = to.layout
        if isinstance(value, View) and isinstance(value.layout, Scalar):
            value = self.read(value)
        if isinstance(layout, Scalar) and isinstance(value, Number):
            operand = value.operand
            if layout.big and layout.size != 1:
                operand = self.b.byte_swap(operand, layout.size)
            self.b.store(to.memory, 0, layout.size, operand)
        elif isinstance(value, View) and value.layout == layout:
            self.b.copy(to.memory, value.memory, layout.size, align=_align(to, value))
        elif isinstance(value, Constant) and isinstance(value.value, bytes):
            if len(value.value) != layout.size:
                raise self.error(node, f"{layout.size} bytes are wanted, not {len(value.value)}")
            self.b.bytes_(to.memory, value.value, align=_align(to))
        else:
            raise self.error(node, "a value of another type is stored here")

    def construct(self, node: ast.Call, made: type[Struct]) -> View:
        """``State(tokens=1)``: on the stack, what is not given is zero."""
        layout = struct_type(made)
        if node.args:
            raise self.error(node, "fields are given by name")
        view = View(layout, self.b.buffer(layout.size))
        values = [(word, self.expression(word.value)) for word in node.keywords]
        self.zero_gaps(view, {word.arg for word in node.keywords})
        for word, value in values:
            attribute = ast.copy_location(ast.Attribute(node, word.arg or "", ast.Store()), node)
            self.write(word.value, self.field(attribute, view), value)
        return view

    def zero_gaps(self, view: View, given: set[str | None]) -> None:
        """Zero the 8-byte words (the last may be shorter) no single field given covers."""
        size = view.layout.size
        fields = cast("StructType", view.layout).fields.values()
        covered = [(f.offset, f.offset + f.layout.size) for f in fields if f.name in given]
        for at in range(0, size, 8):
            end = min(at + 8, size)
            if not any(first <= at and end <= last for first, last in covered):
                self.b.zero(view.memory + at, end - at)

    def fill(self, node: ast.Call) -> Value:
        arguments = self.arguments(node, 1, 2)
        view = self.expression(arguments[0])
        byte = self.number(arguments[1]).operand if len(arguments) > 1 else 0
        if not isinstance(view, View) or not isinstance(byte, int):
            raise self.error(node, "a byte array and a constant are wanted")
        data = bytes([byte & 255]) * view.layout.size
        self.b.bytes_(view.memory, data, align=_align(view))
        return NONE

    def place(self, node: ast.expr) -> View:
        """The field or element an expression means, in place."""
        if isinstance(node, ast.Attribute):
            base = self.expression(node.value)
            if isinstance(base, View):
                return self.field(node, base)
        if isinstance(node, ast.Subscript):
            return self.element(node, self.expression(node.value))
        value = self.expression(node)
        if isinstance(value, View):
            return value
        raise self.error(node, "a field is wanted here")

    def atomic_add(self, node: ast.Call) -> Value:
        target, amount = self.arguments(node, 2)
        place = self.place(target)
        if not isinstance(place.layout, Scalar) or place.layout.size < 4 or place.layout.big:
            raise self.error(node, "only fields of 4 or 8 bytes can be added to atomically")
        self.b.atomic_add(place.memory, 0, place.layout.size, self.number(amount).operand)
        return NONE


def without_none(annotation: Any) -> Any:
    """``X | None`` is X: whether it is there is looked at when it is used."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if type(None) in typing.get_args(annotation) and len(parts) == 1:
        return parts[0]
    return annotation


def _align(*views: View) -> Any:
    """The alignment a copy may count on: the stack and maps are aligned as their types are,
    packets need none."""
    best = 8
    for view in views:
        base_align = 8 if isinstance(view.layout, ArrayType) else view.layout.align
        offset = view.memory.offset
        low = offset & -offset if offset else 8
        best = min(best, low if not isinstance(view.memory.base, Reg) else max(base_align, 1))
    return best
