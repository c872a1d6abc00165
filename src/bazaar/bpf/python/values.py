"""What an expression is while it is compiled."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bazaar.bpf.ir import Memory, Operand, Reg
from bazaar.bpf.python.types import Layout, Scalar
from bazaar.errors import CompileError


@dataclass(frozen=True, slots=True)
class Number:
    """An integer. ``signed`` is None for what fits both kinds: constants, small unsigned ones."""

    operand: Operand
    signed: bool | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A typed piece of memory; ``nullable`` when its base register may hold 0."""

    layout: Layout
    memory: Memory
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """Any other Python object known while compiling: a map, a module, a class, None."""

    value: object


Value: TypeAlias = Number | View | Constant
NONE = Constant(None)


@dataclass(slots=True)
class Variable:
    """A local variable: a register and what lies in it."""

    reg: Reg
    scalar: Scalar | None = None  # for integers
    layout: Layout | None = None  # for addresses

    def value(self) -> Value:
        """The variable as an expression."""
        if self.layout is not None:
            return View(self.layout, Memory(self.reg), nullable=True)
        scalar = self.scalar or Scalar(8)
        return Number(self.reg, signedness(scalar))


def signedness(scalar: Scalar) -> bool | None:
    """None for unsigned integers of less than 8 bytes, which fit both kinds."""
    return None if scalar.size < 8 and not scalar.signed else scalar.signed


@dataclass(slots=True)
class Source:
    """A Python function's text as a tree, and where it stands."""

    function: Callable[..., Any]
    tree: ast.FunctionDef
    file: str
    first_line: int
    indent: int
    lines: list[str]
    names: dict[str, object]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Source:
        """Read it with inspect; CompileError where there is no source."""
        try:
            lines, first = inspect.getsourcelines(function)
        except (OSError, TypeError) as error:
            raise CompileError(
                f"the source of {function!r} cannot be read: {error}",
                hint="compiled functions must stand in a file, not in a console",
            ) from error
        text = "".join(lines)
        tree = ast.parse(textwrap.dedent(text)).body[0]
        file = inspect.getsourcefile(function) or "?"
        if not isinstance(tree, ast.FunctionDef):
            raise CompileError("only a plain function can be compiled", file=file, line=first)
        indent = len(lines[0]) - len(lines[0].lstrip())
        cells = inspect.getclosurevars(function)
        names: dict[str, object] = {**vars(builtins), **function.__globals__, **cells.nonlocals}
        return cls(function, tree, file, first, indent, lines, names)


@dataclass(slots=True)
class Loop:
    """Where break and continue go."""

    on_break: str
    on_continue: str


@dataclass(slots=True)
class Frame:
    """One function being compiled, the program itself or one inlined into it."""

    source: Source
    scope: dict[str, Variable | Value] = field(default_factory=dict[str, "Variable | Value"])
    assigned: set[str] = field(default_factory=set[str])
    local: set[str] = field(default_factory=set[str])
    loops: list[Loop] = field(default_factory=list[Loop])
    end: str | None = None  # where return of an inlined function goes
    result: Variable | None = None
    returns_none: bool = False
