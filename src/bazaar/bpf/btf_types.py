"""BTF's kinds of types, as the kernel's Documentation/bpf/btf.rst defines them.

A type refers to others by number; number 0 is ``void``. Offsets of members are bits.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from bazaar.model.record import record


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


@record
class Void:
    id: int = 0
    name: str = "void"


@record
class Int:
    """``size`` bytes, of which ``bits`` count from bit ``offset`` (bitfields of old compilers)."""

    id: int
    name: str
    size: int
    signed: bool
    char: bool
    boolean: bool
    bits: int
    offset: int


@record
class Float:
    id: int
    name: str
    size: int


@record
class Ptr:
    id: int
    target: int
    name: str = ""


@record
class Array:
    id: int
    element: int
    index: int
    count: int
    name: str = ""


@record
class Member:
    """``offset`` in bits from the struct's start; ``bits`` is the width of a bitfield, else 0."""

    name: str
    type: int
    offset: int
    bits: int


@record
class Struct:
    """A struct or, with ``union``, a union; ``name`` is "" for an anonymous one."""

    id: int
    name: str
    size: int
    members: tuple[Member, ...]
    union: bool


@record
class Enum:
    id: int
    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


@record
class Forward:
    """A struct or union that is named and nowhere described."""

    id: int
    name: str
    union: bool


@record
class Typedef:
    id: int
    name: str
    target: int


@record
class Qualifier:
    """``const``, ``volatile``, ``restrict``, or an attribute (``kind`` TYPE_TAG, in ``name``)."""

    id: int
    kind: Kind
    target: int
    name: str = ""


@record
class Func:
    """A function; ``proto`` is its FuncProto. Linkage: 0 static, 1 global, 2 extern."""

    id: int
    name: str
    proto: int
    linkage: int


@record
class Parameter:
    name: str
    type: int


@record
class FuncProto:
    """Result and parameters; a last parameter of type 0 stands for ``...``."""

    id: int
    result: int
    parameters: tuple[Parameter, ...]
    name: str = ""


@record
class Var:
    id: int
    name: str
    type: int
    linkage: int


@record
class Datasec:
    """A section: its variables as (type, offset in bytes, size in bytes)."""

    id: int
    name: str
    size: int
    variables: tuple[tuple[int, int, int], ...]


@record
class DeclTag:
    """An attribute of a type, or of its member or parameter number ``component`` (-1: itself)."""

    id: int
    name: str
    target: int
    component: int


Type: TypeAlias = (
    Void | Int | Float | Ptr | Array | Struct | Enum | Forward | Typedef | Qualifier
    | Func | FuncProto | Var | Datasec | DeclTag
)  # fmt: skip


@record
class Field:
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
