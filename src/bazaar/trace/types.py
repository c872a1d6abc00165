"""The types of a trace program's values."""

from __future__ import annotations

from typing import TypeAlias

from bazaar.model.record import field, record

STRING = 64  # bytes of a string read from memory, its final zero included
COMM = 16  # TASK_COMM_LEN


@record
class Int:
    """A whole number; kept in 64 bits everywhere. ``neutral``: a literal, of either sign."""

    signed: bool = True
    neutral: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return "int64" if self.signed else "uint64"


@record
class Text:
    """A string of up to ``size`` bytes with its final zero, padded with zeroes behind it."""

    size: int

    @property
    def room(self) -> int:
        """Bytes it takes in keys, values and events: whole words."""
        return -(-self.size // 8) * 8

    def __str__(self) -> str:
        return f"string[{self.size}]"


@record
class Pointer:
    """An address; ``element`` is what an index into it gives, if that is known."""

    user: bool = False
    element: Pointer | Int | None = None
    element_size: int = 8

    def __str__(self) -> str:
        return "pointer"


@record
class Container:
    """A cgroup's id in the kernel, a container's name for people."""

    def __str__(self) -> str:
        return "container"


@record
class Array:
    """An array inside a tracepoint's record."""

    count: int
    size: int
    signed: bool

    def __str__(self) -> str:
        return f"{Int(self.signed)}[{self.count}]"


@record
class Record:
    """``args``: the record of a tracepoint."""

    def __str__(self) -> str:
        return "args"


@record
class Nothing:
    """What a call gives that is made for what it does."""

    def __str__(self) -> str:
        return "none"


@record
class Aggregate:
    """What count(), hist() and the like keep; ``parameters`` are hist's and lhist's."""

    name: str
    signed: bool = field(default=True, compare=False)
    parameters: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}_t"


Type: TypeAlias = Int | Text | Pointer | Container | Array | Record | Nothing | Aggregate
Stored: TypeAlias = Int | Text | Pointer | Container  # what keys, variables and events can hold

NUMBER = Int()
UNSIGNED = Int(signed=False)
NOTHING = Nothing()


def room(kind: Stored) -> int:
    """Bytes a value takes in keys, values and events."""
    return kind.room if isinstance(kind, Text) else 8


def is_number(kind: Type) -> bool:
    """Whether C's operators work on it."""
    return isinstance(kind, Int | Pointer | Container)


def name_of(kind: Type) -> str:
    """What messages call the type, without its size."""
    match kind:
        case Int():
            return "int"
        case Text():
            return "string"
        case _:
            return str(kind)


def unify(left: Type, right: Type) -> Type | None:  # noqa: PLR0911 - one line a pair
    """The type that holds both; None when there is none."""
    if left == right and not isinstance(left, Aggregate | Int):
        return left
    match left, right:
        case Text(size=one), Text(size=two):
            return Text(max(one, two))
        case Int(), Int():
            if left.neutral != right.neutral:
                return right if left.neutral else left
            return Int(left.signed or right.signed, left.neutral)
        case Aggregate(), Aggregate() if left == right:
            return Aggregate(left.name, left.signed or right.signed, left.parameters)
        case (Pointer(), Int()) | (Container(), Int()):
            return left
        case (Int(), Pointer()) | (Int(), Container()):
            return right
        case Pointer(), Pointer():
            return Pointer(left.user)
        case _:
            return None
