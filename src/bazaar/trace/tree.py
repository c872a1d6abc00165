"""The syntax tree of a trace program, and its text again.

``write(tree)`` gives a text whose tree equals the one given (spans aside).
"""

from __future__ import annotations

from typing import TypeAlias

from bazaar.model.record import field, record
from bazaar.trace.lexer import Span


@record
class Integer:
    """A whole number as written, without sign."""

    span: Span = field(compare=False)
    value: int


@record
class String:
    """A text between quotes, escapes resolved."""

    span: Span = field(compare=False)
    value: str


@record
class Positional:
    """``$1``: the program's parameter; number 0 is ``$#``, their count."""

    span: Span = field(compare=False)
    number: int


@record
class Name:
    """A builtin (pid, comm, …)."""

    span: Span = field(compare=False)
    name: str


@record
class Variable:
    """A scratch variable; ``name`` with its ``$``."""

    span: Span = field(compare=False)
    name: str


@record
class Map:
    """A map, or one of its values; ``name`` with its ``@``."""

    span: Span = field(compare=False)
    name: str
    keys: tuple[Expression, ...] = ()


@record
class Field:
    """``args.count``, ``args->count``."""

    span: Span = field(compare=False)
    of: Expression
    name: str
    name_span: Span = field(compare=False)


@record
class Index:
    """``args.argv[0]``."""

    span: Span = field(compare=False)
    of: Expression
    index: Expression


@record
class Call:
    """A function call, in an expression or as a statement."""

    span: Span = field(compare=False)
    name: str
    arguments: tuple[Expression, ...]


@record
class Unary:
    """``-a ~a !a``."""

    span: Span = field(compare=False)
    operator: str
    operand: Expression


@record
class Step:
    """``++a --a a++ a--``; ``before`` when the operator stands in front."""

    span: Span = field(compare=False)
    operator: str
    target: Variable | Map
    before: bool


@record
class Binary:
    """Two operands and C's operator between them."""

    span: Span = field(compare=False)
    operator: str
    left: Expression
    right: Expression


@record
class Ternary:
    """``condition ? then : otherwise``."""

    span: Span = field(compare=False)
    condition: Expression
    then: Expression
    otherwise: Expression


@record
class Cast:
    """``(uint8)a``."""

    span: Span = field(compare=False)
    type: str
    operand: Expression


Expression: TypeAlias = (
    Integer
    | String
    | Positional
    | Name
    | Variable
    | Map
    | Field
    | Index
    | Call
    | Unary
    | Step
    | Binary
    | Ternary
    | Cast
)


@record
class Assign:
    """``target = value``, or a compound assignment when ``operator`` is not empty."""

    span: Span = field(compare=False)
    target: Variable | Map
    operator: str
    value: Expression


@record
class Evaluate:
    """An expression as a statement: a call, ``@a++``."""

    span: Span = field(compare=False)
    value: Expression


@record
class If:
    """``if (condition) { … } else { … }``."""

    span: Span = field(compare=False)
    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@record
class Unroll:
    """``unroll (n) { … }``: the body, n times."""

    span: Span = field(compare=False)
    count: Expression
    body: tuple[Statement, ...]


@record
class Return:
    """``return``: leaves the clause."""

    span: Span = field(compare=False)


Statement: TypeAlias = Assign | Evaluate | If | Unroll | Return


@record
class Point:
    """Where a clause is attached: the probe's name, cut at its colons."""

    span: Span = field(compare=False)
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        return ":".join(self.parts)


@record
class Clause:
    """Probes, an optional predicate, and what is done when they fire."""

    span: Span = field(compare=False)
    points: tuple[Point, ...]
    predicate: Expression | None
    body: tuple[Statement, ...]


@record
class Program:
    """A whole trace program."""

    clauses: tuple[Clause, ...]


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\", "\0": "\\000"}


def write(program: Program) -> str:
    """The program as text, one clause a paragraph."""
    return "\n".join(_clause(clause) for clause in program.clauses)


def _clause(clause: Clause) -> str:
    points = ",\n".join(point.text for point in clause.points)
    predicate = f" / {expression(clause.predicate)} /" if clause.predicate else ""
    return f"{points}{predicate} {_block(clause.body, 0)}\n"


def _block(body: tuple[Statement, ...], depth: int) -> str:
    inside = "".join(f"{'  ' * (depth + 1)}{_statement(one, depth + 1)}\n" for one in body)
    return f"{{\n{inside}{'  ' * depth}}}"


def _statement(statement: Statement, depth: int) -> str:
    match statement:
        case Assign(target=target, operator=operator, value=value):
            return f"{expression(target)} {operator}= {expression(value)};"
        case Evaluate(value=value):
            return f"{expression(value)};"
        case If(condition=condition, then=then, otherwise=otherwise):
            text = f"if ({expression(condition)}) {_block(then, depth)}"
            return text + (f" else {_block(otherwise, depth)}" if otherwise else "")
        case Unroll(count=count, body=body):
            return f"unroll ({expression(count)}) {_block(body, depth)}"
        case Return():
            return "return;"


def _all(expressions: tuple[Expression, ...]) -> str:
    return ", ".join(map(expression, expressions))


def expression(node: Expression) -> str:  # noqa: PLR0911, PLR0912 - one line a kind of node
    """An expression as text, in parentheses wherever the order could be read otherwise."""
    match node:
        case Integer(value=value):
            return str(value)
        case String(value=value):
            return '"' + "".join(_ESCAPES.get(one, one) for one in value) + '"'
        case Positional(number=number):
            return f"${number}" if number else "$#"
        case Name(name=name) | Variable(name=name):
            return name
        case Map(name=name, keys=keys):
            return f"{name}[{_all(keys)}]" if keys else name
        case Field(of=of, name=name):
            return f"{expression(of)}.{name}"
        case Index(of=of, index=index):
            return f"{expression(of)}[{expression(index)}]"
        case Call(name=name, arguments=arguments):
            return f"{name}({_all(arguments)})"
        case Unary(operator=operator, operand=operand):
            return f"({operator}{expression(operand)})"
        case Step(operator=operator, target=target, before=before):
            text = expression(target)
            return f"({operator}{text})" if before else f"({text}{operator})"
        case Binary(operator=operator, left=left, right=right):
            return f"({expression(left)} {operator} {expression(right)})"
        case Ternary(condition=condition, then=then, otherwise=otherwise):
            return f"({expression(condition)} ? {expression(then)} : {expression(otherwise)})"
        case Cast(type=name, operand=operand):
            return f"(({name}){expression(operand)})"
