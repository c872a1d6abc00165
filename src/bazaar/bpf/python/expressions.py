"""Expressions: names, fields, elements, arithmetic, comparisons, conditions."""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast

from bazaar.bpf.asm import SourceLine
from bazaar.bpf.builder import Builder
from bazaar.bpf.ir import INVERSE, Arithmetic, Comparison, Memory, Operand, Reg
from bazaar.bpf.maps import MapSpec
from bazaar.bpf.python.maps import Array, Declared, Keyed
from bazaar.bpf.python.maps import Variable as SharedVariable
from bazaar.bpf.python.types import ArrayType, Scalar, StructType
from bazaar.bpf.python.values import (
    NONE,
    Constant,
    Frame,
    Number,
    Value,
    Variable,
    View,
    signedness,
)
from bazaar.errors import CompileError

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
_COMPARE: dict[type[ast.cmpop], tuple[Comparison, Callable[[int, int], bool]]] = {
    ast.Eq: ("eq", operator.eq),
    ast.NotEq: ("ne", operator.ne),
    ast.Lt: ("lt", operator.lt),
    ast.LtE: ("le", operator.le),
    ast.Gt: ("gt", operator.gt),
    ast.GtE: ("ge", operator.ge),
}


class Expressions(ABC):
    """Compiles expressions into a builder."""

    def __init__(self, builder: Builder, frame: Frame) -> None:
        self.b = builder
        self.frame = frame
        self.maps: dict[str, MapSpec] = {}
        self.keys: dict[int, Memory] = {}

    @abstractmethod
    def call(self, node: ast.Call) -> Value:
        """A call's value."""

    @abstractmethod
    def lookup(self, found: Keyed[Any, Any], key: ast.expr) -> View:
        """A map's value in place, or null."""

    @abstractmethod
    def packet_or(self, node: ast.expr, null: str) -> bool:
        """Compile ``name := packet(…)`` so that a short packet goes to the label; False when
        the expression is something else."""

    # places and errors

    def error(self, node: ast.AST, message: str, hint: str | None = None) -> CompileError:
        """The refusal to raise, pointing at the node."""
        source = self.frame.source
        line = getattr(node, "lineno", 1) + source.first_line - 1
        column = getattr(node, "col_offset", 0) + source.indent
        return CompileError(message, file=source.file, line=line, column=column, hint=hint)

    def at(self, node: ast.stmt | ast.expr) -> None:
        """What follows comes from this node's line."""
        source = self.frame.source
        text = source.lines[node.lineno - 1].strip() if node.lineno <= len(source.lines) else ""
        line = node.lineno + source.first_line - 1
        self.b.line = SourceLine(source.file, line, text, node.col_offset + source.indent + 1)

    # expressions

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
                raise self.error(node, f"{_what(node)} cannot be compiled")

    def wrap(self, value: object) -> Value:
        """A Python object known while compiling."""
        return Number(int(value)) if isinstance(value, int) else Constant(value)

    def name(self, node: ast.Name) -> Value:
        """A local variable, or what the name means in Python where the function stands."""
        frame = self.frame
        if node.id in frame.local:
            held = frame.scope.get(node.id)
            if held is None or node.id not in frame.assigned:
                raise self.error(node, f"'{node.id}' may not have a value yet")
            return held.value() if isinstance(held, Variable) else held
        if node.id not in frame.source.names:
            raise self.error(node, f"'{node.id}' is not defined")
        return self.wrap(frame.source.names[node.id])

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

    def field(self, node: ast.Attribute, base: View) -> View:
        """A field in place."""
        if not isinstance(base.layout, StructType):
            raise self.error(node, f"only structs have fields, this has no '{node.attr}'")
        found = base.layout.fields.get(node.attr)
        if found is None:
            names = ", ".join(base.layout.fields)
            raise self.error(
                node, f"{base.layout.name} has no field '{node.attr}'", f"it has {names}"
            )
        return View(found.layout, base.memory + found.offset)

    def read(self, view: View) -> Value:
        """An integer is loaded; structs and arrays stay where they are."""
        if not isinstance(view.layout, Scalar):
            return view
        scalar = view.layout
        value = self.b.load(view.memory, 0, scalar.size, signed=scalar.signed and not scalar.big)
        if scalar.big and scalar.size != 1:
            value = self.b.byte_swap(value, scalar.size)
            if scalar.signed:
                value = self.b.extend(value, scalar.size, signed=True)
        return Number(value, signedness(scalar))

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
        raise self.error(node, f"{_described(value)} is no integer")

    def base(self, node: ast.AST, view: View) -> Operand:
        """The register that is 0 when there is nothing."""
        if isinstance(view.memory.base, Reg) and view.memory.offset == 0:
            return view.memory.base
        raise self.error(node, "this is always there, it cannot be None")

    def binary(self, node: ast.AST, op: ast.operator, left: Number, right: Number) -> Number:
        """left op right; constants as Python computes them."""
        if isinstance(op, ast.Div):
            raise self.error(node, "'/' gives a fraction", "use '//'")
        known = _OPERATORS.get(type(op))
        if known is None:
            raise self.error(node, f"operator {_what(op)} cannot be compiled")
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

    # conditions

    def boolean(self, node: ast.expr) -> Number:
        """A condition as 1 or 0 (`and` and `or` give the operand, as in Python)."""
        known = self.constant_truth(node)
        if known is not None:
            return Number(int(known))
        if isinstance(node, ast.BoolOp):
            return self.either(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            left, right = self.number(node.left), self.number(node.comparators[0])
            op = self.comparison(node, node.ops[0], left, right)
            return Number(self.b.binary(op, left.operand, right.operand))
        end = self.b.label("end")
        result = self.b.move(1)
        self.branch_if(node, end, sense=True)
        self.b.move(0, result)
        self.b.place(end)
        return Number(result)

    def either(self, node: ast.BoolOp) -> Number:
        result = self.b.register()
        end = self.b.label("end")
        signed: list[Number] = []
        for index, part in enumerate(node.values):
            value = self.number(part)
            signed.append(value)
            self.b.move(value.operand, result)
            if index + 1 < len(node.values):
                self.b.branch("eq" if isinstance(node.op, ast.And) else "ne", result, 0, end)
        self.b.place(end)
        kinds = {value.signed for value in signed}
        return Number(
            result,
            True if True in kinds and False not in kinds else False if False in kinds else None,
        )

    def constant_truth(self, node: ast.expr) -> bool | None:
        """True or False when it is known while compiling, without emitting anything."""
        match node:
            case ast.Constant():
                return bool(node.value)
            case ast.Name() if node.id not in self.frame.local:
                value = self.frame.source.names.get(node.id)
                return bool(value) if isinstance(value, int) else None
            case ast.UnaryOp(op=ast.Not()):
                known = self.constant_truth(node.operand)
                return None if known is None else not known
            case _:
                return None

    def branch_if(self, node: ast.expr, label: str, *, sense: bool) -> None:
        """Go to the label when the condition is ``sense``, else on."""
        self.at(node)
        known = self.constant_truth(node)
        if known is not None:
            if known == sense:
                self.b.jump(label)
            return
        match node:
            case ast.BoolOp():
                self.branch_bool(node, label, sense=sense)
            case ast.UnaryOp(op=ast.Not()):
                self.branch_if(node.operand, label, sense=not sense)
            case ast.Compare():
                self.branch_compare(node, label, sense=sense)
            case _:
                self.branch_null(node, label, null=not sense)

    def branch_bool(self, node: ast.BoolOp, label: str, *, sense: bool) -> None:
        stops = isinstance(node.op, ast.Or)  # the truth that ends the evaluation
        if stops == sense:
            for part in node.values:
                self.branch_if(part, label, sense=sense)
            return
        skip = self.b.label("skip")
        for part in node.values[:-1]:
            self.branch_if(part, skip, sense=stops)
        self.branch_if(node.values[-1], label, sense=sense)
        self.b.place(skip)

    def branch_null(self, node: ast.expr, label: str, *, null: bool) -> None:
        """Go to the label when the value is 0 or None (``null``), or when it is not."""
        target = label if null else self.b.label("none")
        if self.packet_or(node, target):
            if not null:
                self.b.jump(label)
                self.b.place(target)
            return
        value = self.expression(node)
        op: Comparison = "eq" if null else "ne"
        if isinstance(value, Number):
            self.b.branch(op, value.operand, 0, label)
        elif isinstance(value, View):
            self.b.branch(op, self.base(node, value), 0, label)
        elif bool(value.value) != null:
            self.b.jump(label)

    def branch_compare(self, node: ast.Compare, label: str, *, sense: bool) -> None:
        out = label if not sense else self.b.label("skip")
        parts = [node.left, *node.comparators]
        last = len(node.ops) - 1
        left: Number | None = None
        for index, op in enumerate(node.ops):
            goal, wanted = (label, sense) if index == last else (out, False)
            if isinstance(op, (ast.Is, ast.IsNot)):
                self.identity(node, op, parts[index : index + 2], goal, sense=wanted)
            elif isinstance(op, (ast.In, ast.NotIn)):
                self.membership(node, op, parts[index : index + 2], goal, sense=wanted)
            else:
                left = left or self.number(parts[index])
                right = self.number(parts[index + 1])
                code = self.comparison(node, op, left, right)
                code = code if wanted else cast("Comparison", INVERSE[code])
                self.b.branch(code, left.operand, right.operand, goal)
                left = right
        if sense and last > 0:
            self.b.place(out)

    def comparison(self, node: ast.AST, op: ast.cmpop, left: Number, right: Number) -> Comparison:
        """The condition, signed or not."""
        known = _COMPARE.get(type(op))
        if known is None:
            raise self.error(node, f"comparison {_what(op)} cannot be compiled")
        code = known[0]
        signed = self.both_signed(left, right)
        for side in (left, right):
            if isinstance(side.operand, int) and side.operand < 0 and not signed:
                other = right if side is left else left
                if not isinstance(other.operand, int):
                    raise self.error(
                        node, "an unsigned integer is never negative", "declare it i64"
                    )
                signed = True
        return cast("Comparison", f"s{code}") if signed and code not in {"eq", "ne"} else code

    def identity(
        self, node: ast.Compare, op: ast.cmpop, sides: list[ast.expr], label: str, *, sense: bool
    ) -> None:
        """``x is None``, ``x is not None``."""
        if not (isinstance(sides[1], ast.Constant) and sides[1].value is None):
            raise self.error(node, "'is' compares with None only")
        self.branch_null_only(sides[0], label, null=isinstance(op, ast.Is) == sense)

    def branch_null_only(self, node: ast.expr, label: str, *, null: bool) -> None:
        target = label if null else self.b.label("none")
        if self.packet_or(node, target):
            if not null:
                self.b.jump(label)
                self.b.place(target)
            return
        value = self.expression(node)
        if isinstance(value, View):
            self.b.branch("eq" if null else "ne", self.base(node, value), 0, label)
        elif (value == NONE) == null:
            self.b.jump(label)

    def membership(
        self, node: ast.Compare, op: ast.cmpop, sides: list[ast.expr], label: str, *, sense: bool
    ) -> None:
        """``key in map``, ``x in (1, 2, 3)``."""
        inside = isinstance(op, ast.In) == sense
        if isinstance(sides[1], (ast.Tuple, ast.List, ast.Set)):
            value = self.number(sides[0])
            out = label if inside else self.b.label("skip")
            for item in sides[1].elts:
                self.b.branch("eq", value.operand, self.number(item).operand, out)
            if not inside:
                self.b.jump(label)
                self.b.place(out)
            return
        found = self.expression(sides[1])
        if not (isinstance(found, Constant) and isinstance(found.value, Keyed)):
            raise self.error(node, "'in' needs a map or a tuple of integers")
        view = self.lookup(cast("Keyed[Any, Any]", found.value), sides[0])
        self.b.branch("ne" if inside else "eq", self.base(node, view), 0, label)

    # variables

    def assign(self, target: ast.Name, value: Value, scalar: Scalar | None = None) -> None:
        """Give a local variable a value; the first assignment decides what it is."""
        frame = self.frame
        held = frame.scope.get(target.id)
        if isinstance(value, Constant) and value != NONE:
            frame.scope[target.id] = value
            frame.assigned.add(target.id)
            return
        if not isinstance(held, Variable):
            held = self.declare(target, value, scalar)
        if held is not None:
            self.set(target, held, value)
        frame.assigned.add(target.id)

    def declare(self, target: ast.Name, value: Value, scalar: Scalar | None) -> Variable | None:
        reg = self.b.register(target.id)
        if isinstance(value, View) and scalar is None:
            variable = Variable(reg, layout=value.layout)
        elif isinstance(value, Number):
            variable = Variable(reg, scalar or Scalar(8, signed=value.signed is True))
        elif scalar is not None:
            variable = Variable(reg, scalar)
        else:
            raise self.error(
                target, f"what '{target.id}' is cannot be told from None", "annotate it"
            )
        self.frame.scope[target.id] = variable
        return variable

    def set(self, node: ast.AST, variable: Variable, value: Value) -> None:
        """Move a value into a variable's register."""
        if variable.layout is not None:
            if isinstance(value, View) and value.layout == variable.layout:
                if value.memory.offset or not isinstance(value.memory.base, Reg):
                    self.b.address_of(value.memory, variable.reg)
                else:
                    self.b.move(value.memory.base, variable.reg)
            elif value == NONE:
                self.b.move(0, variable.reg)
            else:
                raise self.error(node, f"{_described(value)} given to a variable of another type")
            return
        if isinstance(value, View) and isinstance(value.layout, Scalar):
            value = self.read(value)
        if not isinstance(value, Number):
            raise self.error(node, f"{_described(value)} given to an integer variable")
        scalar = variable.scalar or Scalar(8)
        if scalar.size < 8:
            self.b.extend(value.operand, scalar.size, signed=scalar.signed, dst=variable.reg)
        else:
            self.b.move(value.operand, variable.reg)

    def use(self, found: Declared) -> None:
        """Note that the program uses the map."""
        known = self.maps.setdefault(found.name, found.spec)
        if known != found.spec:
            raise CompileError(f"two different maps are named '{found.name}'")


def _what(node: ast.AST) -> str:
    return type(node).__name__.lower()


def _described(value: Value) -> str:
    if isinstance(value, View):
        name = value.layout.name if isinstance(value.layout, StructType) else "array"
        return f"a {name}" + (" or None" if value.nullable else "")
    return repr(value.value) if isinstance(value, Constant) else "a number"


__all__ = ["Array", "Expressions"]
