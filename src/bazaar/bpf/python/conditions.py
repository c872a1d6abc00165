"""Conditions: comparisons, `and`, `or`, `not`, `is None`, `in`; as values and as branches."""

from __future__ import annotations

import ast
import operator
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

from bazaar.bpf.ir import INVERSE, Comparison
from bazaar.bpf.python.expressions import Expressions
from bazaar.bpf.python.maps import Keyed
from bazaar.bpf.python.places import what
from bazaar.bpf.python.values import NONE, Constant, Number, Value, View

_COMPARE: dict[type[ast.cmpop], tuple[Comparison, Callable[[int, int], bool]]] = {
    ast.Eq: ("eq", operator.eq),
    ast.NotEq: ("ne", operator.ne),
    ast.Lt: ("lt", operator.lt),
    ast.LtE: ("le", operator.le),
    ast.Gt: ("gt", operator.gt),
    ast.GtE: ("ge", operator.ge),
}


class Conditions(Expressions):
    """Compiles conditions."""

    @abstractmethod
    def packet_or(self, node: ast.expr, null: str) -> bool:
        """Compile ``name := packet(…)`` so that a short packet goes to the label; False when
        the expression is something else."""

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

    def branch_null(self, node: ast.expr, label: str, *, null: bool, zero: bool = True) -> None:
        """Go to the label when the value is None (``null``) or when it is not; with ``zero``,
        0 and whatever else is false counts as None."""
        target = label if null else self.b.label("none")
        if self.packet_or(node, target):
            if not null:
                self.b.jump(label)
                self.b.place(target)
            return
        value = self.expression(node)
        op: Comparison = "eq" if null else "ne"
        if isinstance(value, Number) and zero:
            self.b.branch(op, value.operand, 0, label)
        elif isinstance(value, View):
            self.b.branch(op, self.base(node, value), 0, label)
        elif (value == NONE or (zero and _false(value))) == null:
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
            raise self.error(node, f"comparison {what(op)} cannot be compiled")
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
        self.branch_null(sides[0], label, null=isinstance(op, ast.Is) == sense, zero=False)

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


def _false(value: Value) -> bool:
    return isinstance(value, Constant) and not value.value
