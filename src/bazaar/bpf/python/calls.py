"""Calls: maps, helpers, kfuncs, inlined functions."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from bazaar.bpf import helpers
from bazaar.bpf.ir import Argument, MapRef, Memory
from bazaar.bpf.maps import MapType
from bazaar.bpf.python import kernel
from bazaar.bpf.python.maps import Declared, Keyed, RingBuffer
from bazaar.bpf.python.packets import Packets
from bazaar.bpf.python.types import Scalar, Struct
from bazaar.bpf.python.values import NONE, Constant, Frame, Number, Source, Value, Variable, View

ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
INLINE = "__bpf_inline__"
DEPTH = 16


class Calls(Packets):
    """Compiles calls."""

    depth = 0

    def body(self, statements: list[ast.stmt]) -> bool:
        """Compile statements; True when the end is never reached."""
        raise NotImplementedError

    def call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Attribute):
            owner = self.expression(node.func.value)
            if isinstance(owner, Constant) and isinstance(owner.value, Declared):
                return self.map_method(node, owner.value, node.func.attr)
            called = (
                self.wrap(getattr(owner.value, node.func.attr, None))
                if isinstance(owner, Constant)
                else NONE
            )
        else:
            called = self.expression(node.func)
        function = called.value if isinstance(called, Constant) else None
        own = self.special().get(function) if callable(function) else None
        if own is not None:
            return own(node)
        if function in kernel.HELPERS:
            return self.helper(node, cast("FunctionType", function).__name__, node.args)
        if isinstance(function, type) and issubclass(function, Struct):
            return self.construct(node, function)
        if getattr(cast("object", function), INLINE, False):
            return self.inline(node, cast("Callable[..., Any]", function))
        raise self.error(
            node,
            f"'{ast.unparse(node.func)}' cannot be called in a BPF program",
            "decorate your own functions with @function",
        )

    def special(self) -> dict[object, Callable[[ast.Call], Value]]:
        """Python objects the compiler knows itself."""
        return {
            kernel.packet: self.packet,
            kernel.packet_length: self.packet_length,
            kernel.atomic_add: self.atomic_add,
            kernel.fill: self.fill,
            kernel.helper: lambda node: self.helper(node, self.text(node), node.args[1:]),
            kernel.kernel_function: self.kernel_function,
            min: lambda node: self.extreme(node, "le", "sle"),
            max: lambda node: self.extreme(node, "ge", "sge"),
            int: lambda node: self.number(self.arguments(node, 1)[0]),
            bool: lambda node: self.boolean_of(self.arguments(node, 1)[0]),
            typing.cast: lambda node: self.cast(node, *self.arguments(node, 2)),
            kernel.truncate: lambda node: self.cast(node, *reversed(self.arguments(node, 2))),
        }

    def text(self, node: ast.Call) -> str:
        """The first argument: a name known while compiling."""
        first = node.args[0] if node.args else node
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
        raise self.error(first, "a name in quotes is wanted")

    # integers

    def boolean_of(self, node: ast.expr) -> Number:
        return self.boolean(ast.copy_location(ast.UnaryOp(ast.Not(), _not(node)), node))

    def extreme(self, node: ast.Call, unsigned: str, signed: str) -> Number:
        if len(node.args) < 2 or node.keywords:
            raise self.error(node, "two or more integers are wanted")
        values = [self.number(argument) for argument in node.args]
        constants = [value.operand for value in values if isinstance(value.operand, int)]
        if len(constants) == len(values):
            return Number(min(constants) if unsigned == "le" else max(constants))
        both = values[0]
        for value in values[1:]:
            result = self.b.move(both.operand)
            is_signed = self.both_signed(both, value)
            end = self.b.label("end")
            op = cast(Any, signed if is_signed else unsigned)
            self.b.branch(op, result, value.operand, end)
            self.b.move(value.operand, result)
            self.b.place(end)
            both = Number(
                result, is_signed if both.signed is not None or value.signed is not None else None
            )
        return both

    # helpers

    def passed(self, node: ast.expr) -> Argument:
        """An argument of a helper: integers by value, structs by address, maps as themselves."""
        value = self.expression(node)
        if isinstance(value, Number):
            return value.operand
        if isinstance(value, View):
            return value.memory
        if isinstance(value.value, Declared):
            self.use(value.value)
            return MapRef(value.value.name)
        if value == NONE:
            return 0
        raise self.error(node, f"{value.value!r} cannot be passed to the kernel")

    def helper(self, node: ast.Call, name: str, arguments: list[ast.expr]) -> Number:
        if helpers.number(name) is None:
            raise self.error(node, f"the kernel has no BPF helper named '{name}'")
        values = [self.passed(argument) for argument in arguments]
        if name == "get_current_comm":
            values.append(16)
        if name == "redirect" and len(values) == 1:
            values.append(0)
        if len(values) > 5:
            raise self.error(node, "a helper takes at most five arguments")
        signed = None if name in {"get_smp_processor_id", "get_prandom_u32"} else True
        if name.startswith(("ktime", "jiffies", "get_current_")) or name.endswith("_cgroup_id"):
            signed = False
        return Number(self.b.call(name, *values), signed)

    def kernel_function(self, node: ast.Call) -> Number:
        name = self.text(node)
        values = [self.passed(argument) for argument in node.args[1:]]
        return Number(self.b.call_kernel(name, *values), signed=True)

    # maps

    def map_method(self, node: ast.Call, found: Declared, name: str) -> Value:
        self.use(found)
        if isinstance(found, Keyed):
            keyed = cast("Keyed[Any, Any]", found)
            match name:
                case "lookup":
                    return self.lookup(keyed, self.arguments(node, 1)[0])
                case "update":
                    return self.update(node, keyed)
                case "delete":
                    key = self.key(keyed.key, self.arguments(node, 1)[0])
                    return Number(self.b.delete(found.name, key), signed=True)
                case _:
                    raise self.error(node, f"a map has no '{name}' in a program")
        if isinstance(found, RingBuffer):
            return self.ring_method(node, found, name)
        raise self.error(node, f"'{found.name}' has no '{name}' in a program")

    def lookup(self, found: Keyed[Any, Any], key: ast.expr) -> View:
        self.use(found)
        memory = self.key(found.key, key)
        result = self.b.lookup(found.name, memory)
        return View(found.value, Memory(result), nullable=True)

    def update(self, node: ast.Call, found: Keyed[Any, Any]) -> Number:
        arguments = self.arguments(node, 2, 3)
        flags = self.number(arguments[2]).operand if len(arguments) > 2 else 0
        value = self.key(found.value, arguments[1], second=True)
        key = self.key(found.key, arguments[0])
        return Number(self.b.update(found.name, key, value, flags), signed=True)

    def ring_method(self, node: ast.Call, found: RingBuffer, name: str) -> Value:
        ring = MapRef(found.name)
        if name == "reserve":
            layout = self.layout(self.arguments(node, 1)[0])
            result = self.b.call("ringbuf_reserve", ring, layout.size, 0)
            return View(layout, Memory(result), nullable=True)
        arguments = self.arguments(node, 1, 2)
        view = self.expression(arguments[0])
        flags = self.number(arguments[1]).operand if len(arguments) > 1 else 0
        if not isinstance(view, View):
            raise self.error(node, "an event is wanted")
        if name == "output":
            result = self.b.call("ringbuf_output", ring, view.memory, view.layout.size, flags)
            return Number(result, signed=True)
        if name not in {"submit", "discard"}:
            raise self.error(node, f"a ring buffer has no '{name}'")
        self.b.call(f"ringbuf_{name}", view.memory, flags)
        return NONE

    # own functions

    def inline(self, node: ast.Call, function: Callable[..., Any]) -> Value:
        """Compile the called function's body here."""
        if self.depth >= DEPTH:
            raise self.error(node, f"'{function.__name__}' calls itself, or calls nest too deep")
        source = Source.of(function)
        frame = Frame(source)
        try:
            bound = inspect.signature(function).bind(
                *node.args, **{word.arg or "": word.value for word in node.keywords}
            )
        except TypeError as error:
            raise self.error(node, f"'{function.__name__}': {error}") from error
        bound.apply_defaults()
        frame.local = local_names(source.tree)
        for name, argument in bound.arguments.items():
            value = (
                self.expression(argument) if isinstance(argument, ast.expr) else self.wrap(argument)
            )
            frame.scope[name] = self.held(name, value, written(source.tree))
            frame.assigned.add(name)
        frame.end = self.b.label("return")
        outer, line, self.frame = self.frame, self.b.line, frame
        self.depth += 1
        ends = self.body(source.tree.body)
        self.depth -= 1
        self.frame, self.b.line = outer, line
        self.b.place(frame.end)
        if frame.result is None:
            return NONE
        if (not ends or frame.returns_none) and frame.result.layout is None:
            raise self.error(node, f"'{function.__name__}' does not return a value on every path")
        return frame.result.value()

    def held(self, name: str, value: Value, changed: set[str]) -> Variable | Value:
        """A parameter: a variable of its own only if the function changes it."""
        if name not in changed or isinstance(value, Constant):
            return value
        reg = self.b.register(name)
        variable = (
            Variable(reg, layout=value.layout)
            if isinstance(value, View)
            else Variable(reg, Scalar(8, signed=value.signed is True))
        )
        self.set(ast.Pass(), variable, value)
        return variable


def written(tree: ast.FunctionDef) -> set[str]:
    """The names a function assigns to."""
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def local_names(tree: ast.FunctionDef) -> set[str]:
    """Parameters and assigned names."""
    arguments = tree.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return written(tree) | {argument.arg for argument in every}


def _not(node: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(ast.Not(), node), node)
