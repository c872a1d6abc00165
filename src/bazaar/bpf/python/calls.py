"""Calls: maps, helpers, kfuncs, packets, structs, inlined functions."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from bazaar.bpf import helpers
from bazaar.bpf.ir import Argument, MapRef, Memory, Reg
from bazaar.bpf.maps import MapType
from bazaar.bpf.python import kernel
from bazaar.bpf.python.contexts import Context
from bazaar.bpf.python.expressions import Expressions
from bazaar.bpf.python.maps import Declared, Keyed, RingBuffer
from bazaar.bpf.python.types import (
    ArrayType,
    Layout,
    Scalar,
    Struct,
    StructType,
    layout_of,
    struct_type,
)
from bazaar.bpf.python.values import NONE, Constant, Frame, Number, Source, Value, Variable, View
from bazaar.errors import UsageError

FAR = 0x7FFF  # the verifier follows packet pointers up to 64 KiB
ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
INLINE = "__bpf_inline__"
DEPTH = 16


class Calls(Expressions):
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

    # memory

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

    # packets

    def packet(self, node: ast.Call) -> View:
        short, end = self.b.label("short"), self.b.label("end")
        result = self.b.register("packet")
        view = self.packet_at(node, short)
        self.b.move(cast(Reg, view.memory.base), result)
        self.b.jump(end)
        self.b.place(short)
        self.b.move(0, result)
        self.b.place(end)
        return View(view.layout, Memory(result), nullable=True)

    def packet_or(self, node: ast.expr, null: str) -> bool:
        named = node if isinstance(node, ast.NamedExpr) else None
        called = named.value if named is not None else node
        if not (isinstance(called, ast.Call) and self.is_packet(called.func)):
            return False
        view = self.packet_at(called, null)
        if named is not None:
            self.assign(named.target, view)
        return True

    def is_packet(self, node: ast.expr) -> bool:
        """Whether the name means our function `packet`."""
        if isinstance(node, ast.Attribute):
            return node.attr == "packet" and self.expression(node) == Constant(kernel.packet)
        return isinstance(node, ast.Name) and (
            node.id not in self.frame.local
            and self.frame.source.names.get(node.id) is kernel.packet
        )

    def packet_at(self, node: ast.Call, short: str) -> View:
        """Compare with the packet's end, and go to the label when it is not long enough."""
        named = {word.arg: word.value for word in node.keywords}
        given = [*node.args, *named.values()]
        if not 2 <= len(given) <= 3 or set(named) - {"offset"}:
            raise self.error(node, "packet(context, header, offset) is wanted")
        data, end = self.packet_bounds(node, given[0])
        layout = self.layout(given[1])
        offset = self.number(given[2]).operand if len(given) > 2 else 0
        if isinstance(offset, Reg):
            self.b.branch("gt", offset, FAR, short)
        elif not 0 <= offset <= FAR:
            raise self.error(given[2], f"offset {offset} is not within 0 and {FAR}")
        start = self.b.binary("add", data, offset)
        self.b.branch("gt", self.b.binary("add", start, layout.size), end, short)
        return View(layout, Memory(start))

    def packet_bounds(self, node: ast.Call, context: ast.expr) -> tuple[Reg, Reg]:
        value = self.expression(context)
        if isinstance(value, View) and isinstance(value.layout, StructType):
            made = value.layout.made
            if issubclass(made, Context) and made.packet is not None:
                base, (data, end) = value.memory, made.packet
                return self.b.load(base, data, 4), self.b.load(base, end, 4)
        raise self.error(
            node, "the first argument must be the context of a program that has packets"
        )

    def packet_length(self, node: ast.Call) -> Number:
        data, end = self.packet_bounds(node, self.arguments(node, 1)[0])
        return Number(self.b.binary("sub", end, data), None)

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
