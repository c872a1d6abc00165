"""Statements, and the whole of a program."""

from __future__ import annotations

import ast
import typing
from collections.abc import Callable
from typing import Any, cast

from bazaar.bpf.builder import Builder
from bazaar.bpf.ir import Function, Memory
from bazaar.bpf.maps import MapSpec
from bazaar.bpf.python.calls import ARRAYS, Calls, local_names
from bazaar.bpf.python.contexts import Context
from bazaar.bpf.python.maps import Keyed
from bazaar.bpf.python.storage import without_none
from bazaar.bpf.python.types import Scalar, StructType, layout_of, struct_type
from bazaar.bpf.python.values import (
    NONE,
    Constant,
    Frame,
    Loop,
    Number,
    Source,
    Value,
    Variable,
    View,
)


class Compiler(Calls):
    """Compiles statements."""

    def body(self, statements: list[ast.stmt]) -> bool:
        waiting = list(statements)
        while waiting:
            node = waiting.pop(0)
            if waiting:
                joined = self.joined(node, waiting[0])
                if joined is not None:
                    node = joined
                    waiting.pop(0)
            self.at(node)
            if self.statement(node):
                return True
        return False

    def joined(self, node: ast.stmt, following: ast.stmt) -> ast.stmt | None:
        """``x = packet(…)`` and ``if x is None`` become one test with one jump."""
        if not (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and self.is_packet(node.value.func)
            and isinstance(following, ast.If)
        ):
            return None
        test = following.test
        first = test.values[0] if isinstance(test, ast.BoolOp) else test
        if not (
            isinstance(first, ast.Compare)
            and isinstance(first.left, ast.Name)
            and first.left.id == node.targets[0].id
            and len(first.ops) == 1
            and isinstance(first.ops[0], (ast.Is, ast.IsNot))
        ):
            return None
        named = ast.copy_location(ast.NamedExpr(node.targets[0], node.value), node)
        compare = ast.copy_location(ast.Compare(named, first.ops, first.comparators), first)
        if isinstance(test, ast.BoolOp):
            joined: ast.expr = ast.BoolOp(test.op, [compare, *test.values[1:]])
            ast.copy_location(joined, test)
        else:
            joined = compare
        return ast.copy_location(ast.If(joined, following.body, following.orelse), following)

    def statement(self, node: ast.stmt) -> bool:  # noqa: PLR0912 - one case a kind
        """One statement; True when what follows it is never reached."""
        match node:
            case ast.Assign():
                self.assignment(node)
            case ast.AnnAssign():
                self.annotated(node)
            case ast.AugAssign():
                self.augmented(node)
            case ast.Expr():
                if not isinstance(node.value, ast.Constant):
                    self.expression(node.value)
            case ast.If():
                return self.conditional(node)
            case ast.For():
                self.loop(node)
            case ast.Return():
                self.returned(node)
                return True
            case ast.Break() | ast.Continue():
                loop = self.frame.loops[-1]
                self.b.jump(loop.on_break if isinstance(node, ast.Break) else loop.on_continue)
                return True
            case ast.Delete():
                self.deleted(node)
            case ast.Pass():
                pass
            case ast.While():
                raise self.error(
                    node, "'while' has no bound the verifier could see", "use for and range"
                )
            case _:
                raise self.error(node, f"'{type(node).__name__.lower()}' cannot be compiled")
        return False

    def assignment(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            raise self.error(node, "one target at a time")
        target = node.targets[0]
        if isinstance(target, ast.Tuple):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else []
            if len(values) != len(target.elts):
                raise self.error(node, "as many values as targets are wanted")
            results = [self.copied(self.expression(value)) for value in values]
            for one, value in zip(target.elts, results, strict=True):
                self.store(one, value)
            return
        if isinstance(target, ast.Subscript) and self.map_of(target) is not None:
            self.map_store(target, cast("Keyed[Any, Any]", self.map_of(target)), node.value)
            return
        self.store(target, self.expression(node.value))

    def copied(self, value: Value) -> Value:
        """A number that later assignments do not change."""
        if isinstance(value, Number) and not isinstance(value.operand, int):
            return Number(self.b.move(value.operand), value.signed)
        return value

    def store(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.assign(target, value)
        else:
            self.write(target, self.place(target), value)

    def annotated(self, node: ast.AnnAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise self.error(node, "only variables can be annotated")
        layout = self.layout(node.annotation)
        name = node.target
        if not isinstance(self.frame.scope.get(name.id), Variable):
            reg = self.b.register(name.id)
            scalar = layout if isinstance(layout, Scalar) else None
            self.frame.scope[name.id] = Variable(reg, scalar, None if scalar else layout)
        if node.value is not None:
            self.assign(name, self.expression(node.value))

    def augmented(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            left = self.number(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            self.assign(target, self.binary(node, node.op, left, self.number(node.value)))
            return
        if isinstance(target, ast.Subscript):
            found = self.map_of(target)
            if found is not None:
                self.map_augmented(node, target, found)
                return
        place = self.place(target)
        current = self.read(place)
        if not isinstance(current, Number):
            raise self.error(node, "only integers can be changed in place")
        self.write(node, place, self.binary(node, node.op, current, self.number(node.value)))

    # maps by subscript

    def map_of(self, node: ast.Subscript) -> Keyed[Any, Any] | None:
        if not isinstance(node.value, (ast.Name, ast.Attribute)):
            return None
        value = self.expression(node.value)
        if isinstance(value, Constant) and isinstance(value.value, Keyed):
            return cast("Keyed[Any, Any]", value.value)
        return None

    def map_store(self, node: ast.Subscript, found: Keyed[Any, Any], value: ast.expr) -> None:
        """Arrays are written in place, others updated."""
        self.use(found)
        if found.spec.type in ARRAYS and isinstance(found.value, Scalar):
            number = self.number(value)
            view = self.lookup(found, node.slice)
            with self.b.when("ne", self.base(node, view), 0):
                self.write(node, View(view.layout, view.memory), number)
            return
        memory = self.key(found.value, value, second=True)
        self.b.update(found.name, self.key(found.key, node.slice), memory)

    def map_augmented(
        self, node: ast.AugAssign, target: ast.Subscript, found: Keyed[Any, Any]
    ) -> None:
        """``counts[key] += 1``: atomic where CPUs share the value; a missing key begins with 0."""
        scalar = found.value
        if not isinstance(scalar, Scalar):
            raise self.error(node, f"the values of '{found.name}' are no integers", "use lookup()")
        number = self.number(node.value)
        key = self.key(found.key, target.slice)
        self.use(found)
        missing, end = self.b.label("missing"), self.b.label("end")
        pointer = self.b.lookup(found.name, key)
        self.b.branch("eq", pointer, 0, missing)
        shared = not found.per_cpu and scalar.size >= 4 and not scalar.big
        view = View(scalar, Memory(pointer))
        if shared and isinstance(node.op, (ast.Add, ast.Sub)):
            amount = number.operand
            if isinstance(node.op, ast.Sub):
                amount = -amount if isinstance(amount, int) else self.b.unary("neg", amount)
            self.b.atomic_add(view.memory, 0, scalar.size, amount)
        else:
            current = cast("Number", self.read(view))
            self.write(node, view, self.binary(node, node.op, current, number))
        if found.spec.type in ARRAYS:
            self.b.place(missing)
            return
        self.b.jump(end)
        self.b.place(missing)
        first = self.binary(node, node.op, Number(self.b.move(0), number.signed), number)
        memory = self.temporary(scalar.size, second=True)
        self.write(node, View(scalar, memory), first)
        self.b.update(found.name, key, memory, 1)
        self.b.place(end)

    def deleted(self, node: ast.Delete) -> None:
        for target in node.targets:
            found = self.map_of(target) if isinstance(target, ast.Subscript) else None
            if found is None or not isinstance(target, ast.Subscript):
                raise self.error(target, "only a map's keys can be deleted")
            self.use(found)
            self.b.delete(found.name, self.key(found.key, target.slice))

    # control

    def conditional(self, node: ast.If) -> bool:
        known = self.constant_truth(node.test)
        if known is not None:
            return self.body(node.body if known else node.orelse)
        other, end = self.b.label("else"), self.b.label("end")
        self.branch_if(node.test, other, sense=False)
        before = set(self.frame.assigned)
        first_ends = self.body(node.body)
        after = self.frame.assigned
        self.frame.assigned = set(before)
        if node.orelse and not first_ends:
            self.b.jump(end)
        self.b.place(other)
        second_ends = self.body(node.orelse)
        self.b.place(end)
        if first_ends:
            pass
        elif second_ends:
            self.frame.assigned = after
        else:
            self.frame.assigned &= after
        return first_ends and second_ends

    def loop(self, node: ast.For) -> None:
        called = node.iter
        if not (
            isinstance(called, ast.Call)
            and isinstance(called.func, ast.Name)
            and self.frame.source.names.get(called.func.id) is range
            and isinstance(node.target, ast.Name)
        ):
            raise self.error(node.iter, "only 'for name in range(…)' can be compiled")
        if node.orelse:
            raise self.error(node, "a loop has no 'else' here")
        numbers = [self.number(argument) for argument in self.arguments(called, 1, 3)]
        start = numbers[0].operand if len(numbers) > 1 else 0
        stop = numbers[1].operand if len(numbers) > 1 else numbers[0].operand
        step = numbers[2].operand if len(numbers) > 2 else 1
        if not isinstance(step, int) or step == 0:
            raise self.error(node.iter, "the step must be a constant other than 0")
        stop = stop if isinstance(stop, int) else self.b.move(stop)
        head, on, end = self.b.label("loop"), self.b.label("next"), self.b.label("end")
        index = self.b.move(start)
        self.b.place(head)
        self.b.branch("sge" if step > 0 else "sle", index, stop, end)
        before = set(self.frame.assigned)
        small = Scalar(8, signed=True) if step < 0 or not _natural(start) else Scalar(4)
        variable = Variable(self.b.move(index), small)
        self.frame.scope[node.target.id] = variable
        self.frame.assigned.add(node.target.id)
        self.frame.loops.append(Loop(end, on))
        self.body(node.body)
        self.frame.loops.pop()
        self.b.place(on)
        self.b.binary("add", index, step, index)
        self.b.jump(head)
        self.b.place(end)
        self.frame.assigned = before

    def returned(self, node: ast.Return) -> None:
        frame = self.frame
        value = self.expression(node.value) if node.value is not None else NONE
        if frame.end is None:
            if not isinstance(value, Number):
                raise self.error(node, "a program returns an integer")
            self.b.return_(value.operand)
            return
        if value == NONE:
            frame.returns_none = True
            if frame.result is None:
                hint = typing.get_type_hints(frame.source.function, include_extras=True)
                made = hint.get("return", type(None))
                if made is not type(None):
                    frame.result = self.result_of(node, made)
        elif frame.result is None:
            reg = self.b.register("result")
            if isinstance(value, View):
                frame.result = Variable(reg, layout=value.layout)
            elif isinstance(value, Number):
                frame.result = Variable(reg, Scalar(8, signed=value.signed is True))
            else:
                raise self.error(node, "only integers and structs can be returned")
        if frame.result is not None:
            self.set(node, frame.result, value)
        self.b.jump(frame.end)

    def result_of(self, node: ast.AST, annotation: Any) -> Variable:
        layout = layout_of(without_none(annotation), "return")
        if isinstance(layout, Scalar):
            raise self.error(node, "an integer is never None", "return a number that means it")
        return Variable(self.b.register("result"), layout=layout)


def _natural(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def compile_function(
    function: Callable[..., Any], context: type[Context], *, bail: int
) -> tuple[Function, tuple[MapSpec, ...]]:
    """A Python function as IR, and the maps it uses. CompileError points at its source."""
    source = Source.of(function)
    frame = Frame(source, local=local_names(source.tree))
    builder = Builder(function.__name__, bail=bail)
    compiler = Compiler(builder, frame)
    arguments = source.tree.args
    if len(arguments.args) != 1 or arguments.vararg or arguments.kwonlyargs:
        raise compiler.error(source.tree, "a program has one parameter, its context")
    name = arguments.args[0].arg
    hint = typing.get_type_hints(function, include_extras=True).get(name, context)
    if not (isinstance(hint, type) and issubclass(hint, Context)):
        raise compiler.error(source.tree, f"'{name}' must be annotated with a context type")
    layout: StructType = struct_type(hint)
    frame.scope[name] = View(layout, Memory(builder.context))
    frame.assigned.add(name)
    if not compiler.body(source.tree.body):
        raise compiler.error(
            source.tree, f"'{function.__name__}' may end without returning a value"
        )
    return builder.finish(), tuple(compiler.maps.values())
