"""Where values are: names, variables, fields; and refusals that point at the source."""

from __future__ import annotations

import ast

from bazaar.bpf.asm import SourceLine
from bazaar.bpf.builder import Builder
from bazaar.bpf.ir import Memory, Operand, Reg
from bazaar.bpf.maps import MapSpec
from bazaar.bpf.python.maps import Declared
from bazaar.bpf.python.types import Scalar, StructType
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


class Places:
    """Knows the function being compiled, its variables and maps; appends to a builder."""

    def __init__(self, builder: Builder, frame: Frame) -> None:
        self.b = builder
        self.frame = frame
        self.maps: dict[str, MapSpec] = {}
        self.keys: dict[int, Memory] = {}

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

    # names and variables

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
                raise self.error(node, f"{described(value)} given to a variable of another type")
            return
        if isinstance(value, View) and isinstance(value.layout, Scalar):
            value = self.read(value)
        if not isinstance(value, Number):
            raise self.error(node, f"{described(value)} given to an integer variable")
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

    # memory

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

    def base(self, node: ast.AST, view: View) -> Operand:
        """The register that is 0 when there is nothing."""
        if isinstance(view.memory.base, Reg) and view.memory.offset == 0:
            return view.memory.base
        raise self.error(node, "this is always there, it cannot be None")


def what(node: ast.AST) -> str:
    """A piece of syntax by its name."""
    return type(node).__name__.lower()


def described(value: Value) -> str:
    """A value as an error names it."""
    if isinstance(value, View):
        name = value.layout.name if isinstance(value.layout, StructType) else "array"
        return f"a {name}" + (" or None" if value.nullable else "")
    return repr(value.value) if isinstance(value, Constant) else "a number"
