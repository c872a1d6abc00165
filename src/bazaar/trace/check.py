"""Types and rules: what each expression is, and whether the program makes sense.

A program is walked until no map, key or variable changes its type any more; the last walk
reports what is still unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from bazaar.trace import builtins, points, tree
from bazaar.trace.calls import AGGREGATES, check_aggregate, check_call
from bazaar.trace.lexer import Span, error_at
from bazaar.trace.operations import binary_type, field, index, operation
from bazaar.trace.types import (
    NUMBER,
    Aggregate,
    Array,
    Container,
    Int,
    Nothing,
    Pointer,
    Record,
    Text,
    Type,
    is_number,
    name_of,
    unify,
)
from bazaar.trace.units import Checked, MapInfo, Unit, of_clause

__all__ = ["Checked", "Checker", "MapInfo", "Unit", "binary_type", "check"]


def check(text: str, program: tree.Program, parameters: Sequence[str] = ()) -> Checked:
    """Find every type; raises TraceError at the first place that makes no sense."""
    checker = Checker(text, parameters)
    units = [unit for clause in program.clauses for unit in of_clause(text, clause, parameters)]
    count = sum(len(unit.points) for unit in units)
    if count > points.MOST:
        raise error_at(text, f"the program has {count} probes, more than {points.MOST}", (0, 1))
    for _ in range(30):
        checker.changed = False
        for unit in units:
            checker.walk(unit)
        if not checker.changed:
            break
    checker.final = True
    for unit in units:
        checker.walk(unit)
    return Checked(text, program, tuple(parameters), units, checker.maps)


class Checker:
    """Walks over the units; its methods give the type of what they are given."""

    def __init__(self, text: str, parameters: Sequence[str]) -> None:
        self.text = text
        self.parameters = parameters
        self.maps: dict[str, MapInfo] = {}
        self.changed = False
        self.final = False
        self.repeated = 1
        self.unit = Unit(tree.Clause((0, 0), (), None, ()), [])

    def fail(
        self, message: str, at: tree.Expression | tree.Statement | Span, hint: str | None = None
    ) -> NoReturn:
        span = at if isinstance(at, tuple) else at.span
        raise error_at(self.text, message, span, hint)

    def walk(self, unit: Unit) -> None:
        self.unit = unit
        unit.types.clear()
        self.assigned: set[str] = set()
        if unit.clause.predicate is not None:
            self.condition(unit.clause.predicate)
        self.body(unit.clause.body)

    # Statements

    def body(self, statements: tuple[tree.Statement, ...]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Assign():
                self.assign(statement)
            case tree.Evaluate(value=value):
                kind = self.of(value)
                if isinstance(kind, Aggregate):
                    self.fail(
                        f"{_text(value)} should be assigned to a map, as in @x = {_text(value)}",
                        value,
                    )
                if isinstance(value, tree.Call) and not isinstance(kind, Nothing):
                    self.fail(f"{value.name}() gives a value that is not used", value)
            case tree.If(condition=condition, then=then, otherwise=otherwise):
                self.condition(condition)
                self.body(then)
                self.body(otherwise)
            case tree.Unroll(count=count, body=body):
                times = self.constant(count, "unroll")
                if not 1 <= times <= 100:
                    self.fail(f"unroll takes a number from 1 to 100, not {times}", count)
                self.repeated *= times
                if self.repeated > 1000:
                    self.fail("unrolled more than 1000 times in all", statement)
                self.body(body)
                self.repeated //= times
            case tree.Return():
                pass

    def assign(self, statement: tree.Assign) -> None:
        target = statement.target
        if isinstance(target, tree.Map) and _is_aggregate(statement.value):
            if statement.operator:
                self.fail("use '=' to add to an aggregation", statement)
            self.map_keys(target)
            self.map_value(target, self.of(statement.value))
            return
        kind = self.of(statement.value)
        if statement.operator:
            self.need_number(kind, statement.value, f"{statement.operator}=")
            if isinstance(target, tree.Variable) and target.name not in self.unit.variables:
                self.fail(f"Undefined or undeclared variable: {target.name}", target)
            kind = Int(
                isinstance(kind, Int) and kind.signed,
                neutral=isinstance(kind, Int) and kind.neutral,
            )
        if isinstance(kind, Aggregate):
            self.fail(f"{_text(statement.value)} can only be assigned to a map", statement.value)
        if isinstance(kind, Nothing | Record | Array):
            self.fail(f"a value of type {kind} cannot be kept", statement.value)
        if isinstance(target, tree.Map):
            self.map_keys(target)
            self.map_value(target, kind)
        else:
            self.variable(target, kind)

    def variable(self, target: tree.Variable, kind: Type) -> None:
        known = self.unit.variables.get(target.name)
        merged = unify(known, kind) if known is not None else kind
        if merged is None:
            self.fail(
                f"Type mismatch for {target.name}: trying to assign value of type '{kind}' when "
                f"variable already contains a value of type '{known}'",
                target,
            )
        if merged != known:
            self.unit.variables[target.name] = merged
            self.changed = True
        self.assigned.add(target.name)

    # Maps

    def map_keys(self, node: tree.Map) -> MapInfo:
        """Note the types of a map's keys as used here."""
        info = self.maps.setdefault(node.name, MapInfo(node.name))
        kinds: list[Type] = []
        for key in node.keys:
            kind = self.of(key)
            if not isinstance(kind, Int | Text | Pointer | Container):
                self.fail(f"a value of type {kind} cannot be a key", key)
            kinds.append(Int(kind.signed) if isinstance(kind, Int) else kind)
        if info.keys is None:
            info.keys = tuple(kinds)
            self.changed = True
            return info
        merged = [unify(old, new) for old, new in zip(info.keys, kinds, strict=False)]
        if len(kinds) != len(info.keys) or None in merged:
            expected = (
                f"arguments: '{', '.join(map(str, info.keys))}'" if info.keys else "no arguments"
            )
            given = f"arguments: '{', '.join(map(str, kinds))}'" if kinds else "no arguments"
            self.fail(
                f"Argument mismatch for {node.name}: trying to access with {given} "
                f"when map expects {expected}",
                node,
            )
        new = tuple(kind for kind in merged if kind is not None)
        if new != info.keys:
            info.keys = new
            self.changed = True
        return info

    def map_value(self, node: tree.Map, kind: Type) -> None:
        """Note the type of a map's value as assigned here."""
        info = self.maps[node.name]
        merged = unify(info.value, kind) if info.value is not None else kind
        if merged is None:
            self.fail(
                f"Type mismatch for {node.name}: trying to assign value of type '{kind}' when "
                f"map already contains a value of type '{info.value}'",
                node,
            )
        if merged != info.value or (
            isinstance(merged, Aggregate)
            and isinstance(info.value, Aggregate)
            and merged.signed != info.value.signed
        ):
            info.value = merged
            self.changed = True

    def map_of(self, node: tree.Map) -> MapInfo:
        """A map that is meant as a whole; its keys must not be written."""
        info = self.maps.get(node.name)
        if info is None or info.value is None:
            if self.final:
                self.fail(f"Undefined map: {node.name}", node)
            return MapInfo(node.name)
        return info

    def map_read(self, node: tree.Map) -> Type:
        if self.final and (node.name not in self.maps or self.maps[node.name].value is None):
            self.fail(f"Undefined map: {node.name}", node)
        info = self.maps.get(node.name)
        if info is not None and info.keys and not node.keys:
            self.fail(f"{node.name} has keys: say which value is meant, as in {node.name}[…]", node)
        info = self.map_keys(node)
        if isinstance(info.value, Aggregate):
            self.fail(
                f"{node.name} holds {info.value.name}(), which is kept per processor and cannot be "
                "part of an expression",
                node,
                f"print({node.name}) shows it; to compute with it, count by {node.name}++ instead",
            )
        return info.value if info.value is not None else NUMBER

    # Expressions

    def condition(self, node: tree.Expression) -> None:
        kind = self.of(node)
        if not is_number(kind):
            self.fail(f"a condition must be a number, not {name_of(kind)}", node)

    def constant(self, node: tree.Expression, what: str) -> int:
        """The value of a literal (a sign may stand before it, a parameter may stand for it)."""
        if isinstance(node, tree.Unary) and node.operator == "-":
            return -self.constant(node.operand, what)
        if isinstance(node, tree.Positional):
            self.of(node)
            return builtins.parameter(self.parameters, node.number)
        if not isinstance(node, tree.Integer):
            self.fail(f"{what} takes a literal number here", node)
        self.of(node)
        return node.value

    def of(self, node: tree.Expression) -> Type:
        """The type of an expression, which is kept for the unit."""
        kind = self.infer(node)
        self.unit.types[id(node)] = kind
        return kind

    def infer(self, node: tree.Expression) -> Type:  # noqa: PLR0911, PLR0912 - one line a kind
        match node:
            case tree.Integer(value=value):
                return Int(signed=value < 1 << 63, neutral=value < 1 << 63)
            case tree.String(value=value):
                size = len(value.encode(errors="replace")) + 1
                if size > 1024:
                    self.fail("this string is longer than 1023 bytes", node)
                return Text(size)
            case tree.Positional(number=number):
                if builtins.parameter_problem(self.parameters, number):
                    self.fail(
                        f"${number} is '{self.parameters[number - 1]}', no number; "
                        f"str(${number}) takes it as a string",
                        node,
                    )
                return Int(neutral=True)
            case tree.Name():
                return self.builtin(node)
            case tree.Variable(name=name):
                if name not in self.assigned:
                    self.fail(f"Undefined or undeclared variable: {name}", node)
                return self.unit.variables[name]
            case tree.Map():
                return self.map_read(node)
            case tree.Field():
                return field(self, node)
            case tree.Index():
                return index(self, node)
            case tree.Call(name=name):
                if name in AGGREGATES:
                    return check_aggregate(self, node)
                return check_call(self, node)
            case tree.Step(target=target):
                return self.step(node, target)
            case tree.Cast(type=name, operand=operand):
                self.need_number(self.of(operand), operand, f"({name})")
                return Int(not name.startswith("u"))
            case tree.Unary() | tree.Binary() | tree.Ternary():
                return operation(self, node)

    def builtin(self, node: tree.Name) -> Type:
        kind = builtins.type_of(node.name, self.unit.point)
        if isinstance(kind, str):
            self.fail(kind, node)
        return kind

    def step(self, node: tree.Step, target: tree.Variable | tree.Map) -> Type:
        if isinstance(target, tree.Map):
            self.map_keys(target)
            self.map_value(target, Int(neutral=True))
            kind = self.maps[target.name].value or NUMBER
        else:
            kind = self.of(target)
        self.need_number(kind, target, node.operator)
        return Int(not isinstance(kind, Int) or kind.signed)

    def need_number(self, kind: Type, at: tree.Expression, operator: str) -> None:
        if not is_number(kind):
            self.fail(
                f"The {operator} operator can not be used on expressions of type {name_of(kind)}",
                at,
            )


def _is_aggregate(node: tree.Expression) -> bool:
    return isinstance(node, tree.Call) and node.name in AGGREGATES


def _text(node: tree.Expression) -> str:
    return tree.expression(node)
