"""BTF's kinds of types, as the kernel's Documentation/bpf/btf.rst defines them.

A type refers to others by number; number 0 is ``void``. Offsets of members are bits.

Named tuples where the names allow it: twenty dataclasses cost a tracer 7 ms of its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias


class Kind(IntEnum):
    """``BTF_KIND_*``."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


class Void(NamedTuple):
    id: int = 0
    name: str = "void"


class Int(NamedTuple):
    """``size`` bytes, of which ``bits`` count from bit ``offset`` (bitfields of old compilers)."""

    id: int
    name: str
    size: int
    signed: bool
    char: bool
    boolean: bool
    bits: int
    offset: int


class Float(NamedTuple):
    id: int
    name: str
    size: int


class Ptr(NamedTuple):
    id: int
    target: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    id: int
    element: int
    index: int
    count: int
    name: str = ""


class Member(NamedTuple):
    """``offset`` in bits from the struct's start; ``bits`` is the width of a bitfield, else 0."""

    name: str
    type: int
    offset: int
    bits: int


class Struct(NamedTuple):
    """A struct or, with ``union``, a union; ``name`` is "" for an anonymous one."""

    id: int
    name: str
    size: int
    members: tuple[Member, ...]
    union: bool


class Enum(NamedTuple):
    id: int
    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


class Forward(NamedTuple):
    """A struct or union that is named and nowhere described."""

    id: int
    name: str
    union: bool


class Typedef(NamedTuple):
    id: int
    name: str
    target: int


class Qualifier(NamedTuple):
    """``const``, ``volatile``, ``restrict``, or an attribute (``kind`` TYPE_TAG, in ``name``)."""

    id: int
    kind: Kind
    target: int
    name: str = ""


class Func(NamedTuple):
    """A function; ``proto`` is its FuncProto. Linkage: 0 static, 1 global, 2 extern."""

    id: int
    name: str
    proto: int
    linkage: int


class Parameter(NamedTuple):
    name: str
    type: int


class FuncProto(NamedTuple):
    """Result and parameters; a last parameter of type 0 stands for ``...``."""

    id: int
    result: int
    parameters: tuple[Parameter, ...]
    name: str = ""


class Var(NamedTuple):
    id: int
    name: str
    type: int
    linkage: int


class Datasec(NamedTuple):
    """A section: its variables as (type, offset in bytes, size in bytes)."""

    id: int
    name: str
    size: int
    variables: tuple[tuple[int, int, int], ...]


class DeclTag(NamedTuple):
    """An attribute of a type, or of its member or parameter number ``component`` (-1: itself)."""

    id: int
    name: str
    target: int
    component: int


Type: TypeAlias = (
    Void | Int | Float | Ptr | Array | Struct | Enum | Forward | Typedef | Qualifier
    | Func | FuncProto | Var | Datasec | DeclTag
)  # fmt: skip


class Field(NamedTuple):
    """Where a member lies in a struct, with those it is nested in counted in.

    ``offset`` and ``bits`` are bits; ``bits`` is 0 for what is no bitfield.
    """

    name: str
    type: int
    offset: int
    bits: int

    @property
    def byte_offset(self) -> int:
        """Bytes; of a bitfield: of the byte its first bit is in."""
        return self.offset // 8
