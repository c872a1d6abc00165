"""Expressions: fields, elements, arithmetic."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

from bazaar.bpf.ir import Arithmetic, Memory
from bazaar.bpf.python.maps import Keyed
from bazaar.bpf.python.maps import Variable as SharedVariable
from bazaar.bpf.python.places import Places, described, what
from bazaar.bpf.python.types import ArrayType, Scalar
from bazaar.bpf.python.values import Constant, Number, Value, View, signedness

_OPERATORS: dict[type[ast.operator], tuple[Arithmetic, Callable[[int, int], int]]] = {
    ast.Add: ("add", lambda a, b: a + b),
    ast.Sub: ("sub", lambda a, b: a - b),
    ast.Mult: ("mul", lambda a, b: a * b),
    ast.FloorDiv: ("div", lambda a, b: a // b),
    ast.Mod: ("mod", lambda a, b: a % b),
    ast.BitAnd: ("and", lambda a, b: a & b),
    ast.BitOr: ("or", lambda a, b: a | b),
    ast.BitXor: ("xor", lambda a, b: a ^ b),
    ast.LShift: ("lsh", lambda a, b: a << b),
    ast.RShift: ("rsh", lambda a, b: a >> b),
}
_SIGNED: dict[Arithmetic, Arithmetic] = {"div": "sdiv", "mod": "smod", "rsh": "arsh"}


class Expressions(Places, ABC):
    """Compiles expressions into a builder."""

    @abstractmethod
    def call(self, node: ast.Call) -> Value:
        """A call's value."""

    @abstractmethod
    def lookup(self, found: Keyed[Any, Any], key: ast.expr) -> View:
        """A map's value in place, or null."""

    @abstractmethod
    def boolean(self, node: ast.expr) -> Number:
        """A condition as 1 or 0."""

    @abstractmethod
    def constant_truth(self, node: ast.expr) -> bool | None:
        """True or False when it is known while compiling, without emitting anything."""

    @abstractmethod
    def branch_if(self, node: ast.expr, label: str, *, sense: bool) -> None:
        """Go to the label when the condition is ``sense``, else on."""

    def expression(self, node: ast.expr) -> Value:  # noqa: PLR0911 - one case a kind
        """The value of any expression."""
        match node:
            case ast.Constant():
                return self.wrap(node.value)
            case ast.Name():
                return self.name(node)
            case ast.Attribute():
                return self.attribute(node)
            case ast.Subscript():
                return self.subscript(node)
            case ast.Call():
                return self.call(node)
            case ast.BinOp():
                return self.binary(node, node.op, self.number(node.left), self.number(node.right))
            case ast.UnaryOp():
                return self.unary(node)
            case ast.Compare() | ast.BoolOp():
                return self.boolean(node)
            case ast.IfExp():
                return self.choice(node)
            case ast.NamedExpr():
                self.assign(node.target, self.expression(node.value))
                return self.name(node.target)
            case _:
                raise self.error(node, f"{what(node)} cannot be compiled")

    def attribute(self, node: ast.Attribute) -> Value:
        """A field of a struct, or an attribute of something known while compiling."""
        base = self.expression(node.value)
        if isinstance(base, View):
            return self.read(self.field(node, base))
        if not isinstance(base, Constant):
            raise self.error(node, f"a number has no attribute '{node.attr}'")
        if isinstance(base.value, SharedVariable) and node.attr == "current":
            shared = cast("SharedVariable[Any]", base.value)
            self.use(shared)
            return self.read(View(shared.value, Memory(self.b.map_value(shared.name))))
        try:
            return self.wrap(getattr(cast("object", base.value), node.attr))
        except AttributeError:
            raise self.error(node, f"there is no '{ast.unparse(node)}'") from None

    def subscript(self, node: ast.Subscript) -> Value:
        """An element of an array, or a map's integer (0 where there is none)."""
        base = self.expression(node.value)
        if isinstance(base, Constant) and isinstance(base.value, Keyed):
            found = cast("Keyed[Any, Any]", base.value)
            if not isinstance(found.value, Scalar):
                raise self.error(
                    node, f"the values of '{found.name}' are no integers", "use lookup()"
                )
            view = self.lookup(found, node.slice)
            result = self.b.move(0)
            with self.b.when("ne", self.base(node, view), 0):
                value = cast("Number", self.read(view))
                self.b.move(value.operand, result)
            return Number(result, signedness(found.value))
        return self.read(self.element(node, base))

    def element(self, node: ast.Subscript, base: Value) -> View:
        """An array's element in place."""
        if not isinstance(base, View) or not isinstance(base.layout, ArrayType):
            raise self.error(node, "only arrays and maps can be indexed")
        index = self.number(node.slice).operand
        size = base.layout.element.size
        if isinstance(index, int):
            if not 0 <= index < base.layout.count:
                raise self.error(node, f"index {index}, but there are {base.layout.count} elements")
            return View(base.layout.element, base.memory + index * size)
        start = self.b.address_of(base.memory)
        place = self.b.binary("add", start, self.b.binary("mul", index, size))
        return View(base.layout.element, Memory(place))

    def number(self, node: ast.expr) -> Number:
        """The value of an expression that must be an integer."""
        value = self.expression(node)
        if isinstance(value, View) and isinstance(value.layout, Scalar):
            value = self.read(value)  # a map's integer, looked up and found
        if isinstance(value, Number):
            return value
        raise self.error(node, f"{described(value)} is no integer")

    # arithmetic

    def binary(self, node: ast.AST, op: ast.operator, left: Number, right: Number) -> Number:
        """left op right; constants as Python computes them."""
        if isinstance(op, ast.Div):
            raise self.error(node, "'/' gives a fraction", "use '//'")
        known = _OPERATORS.get(type(op))
        if known is None:
            raise self.error(node, f"operator {what(op)} cannot be compiled")
        code, function = known
        if isinstance(left.operand, int) and isinstance(right.operand, int):
            try:
                return Number(function(left.operand, right.operand))
            except (ZeroDivisionError, ValueError) as error:
                raise self.error(node, str(error)) from error
        shift = code in {"lsh", "rsh"}
        signed = left.signed is True if shift else self.both_signed(left, right)
        if signed:
            code = _SIGNED.get(code, code)
        return Number(self.b.binary(code, left.operand, right.operand), signed)

    @staticmethod
    def both_signed(left: Number, right: Number) -> bool:
        """As in C: signed when one side is and the other is no unsigned integer of 64 bits."""
        kinds = (left.signed, right.signed)
        return True in kinds and False not in kinds

    def unary(self, node: ast.UnaryOp) -> Number:
        """-x, ~x, +x, not x."""
        if isinstance(node.op, ast.Not):
            return self.boolean(node)
        value = self.number(node.operand)
        if isinstance(node.op, ast.UAdd):
            return value
        negative = isinstance(node.op, ast.USub)
        if isinstance(value.operand, int):
            return Number(-value.operand if negative else ~value.operand)
        result = self.b.unary("neg" if negative else "not", value.operand)
        return Number(result, value.signed is True)

    def choice(self, node: ast.IfExp) -> Value:
        """``a if condition else b`` of two integers."""
        known = self.constant_truth(node.test)
        if known is not None:
            return self.expression(node.body if known else node.orelse)
        result = self.b.register()
        other, end = self.b.label("else"), self.b.label("end")
        self.branch_if(node.test, other, sense=False)
        first = self.number(node.body)
        self.b.move(first.operand, result)
        self.b.jump(end)
        self.b.place(other)
        second = self.number(node.orelse)
        self.b.move(second.operand, result)
        self.b.place(end)
        return Number(result, self.both_signed(first, second))
