"""Types of a compiled program's values: integers by width, structs, byte arrays.

For a type checker all integers are `int`; the compiler reads the width, sign and byte order from
the annotation. Structs are laid out as C lays them out: natural alignment, unless `packed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeAlias,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from bazaar.bpf.ir import Size
from bazaar.errors import UsageError


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer of 1, 2, 4 or 8 bytes; ``big``: the network's byte order."""

    size: Size
    signed: bool = False
    big: bool = False

    @property
    def align(self) -> int:
        """Alignment in bytes."""
        return self.size


@dataclass(frozen=True, slots=True)
class Items:
    """``count`` elements of one type, one after the other; of `u8` it is a byte array."""

    element: Any
    count: int


@dataclass(frozen=True, slots=True)
class ArrayType:
    """The layout of `Items`."""

    element: Layout
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.element.size * self.count

    @property
    def align(self) -> int:
        """Alignment in bytes."""
        return self.element.align


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct."""

    name: str
    offset: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class StructType:
    """The layout of a `Struct` class."""

    name: str
    fields: dict[str, Field]
    size: int
    align: int
    made: type[Struct]

    def __hash__(self) -> int:
        return hash(self.made)


Layout: TypeAlias = Scalar | ArrayType | StructType

if TYPE_CHECKING:  # to a type checker they are what Python has: `type[int]`, `type[bytes]`
    u8: TypeAlias = int
    u16: TypeAlias = int
    u32: TypeAlias = int
    u64: TypeAlias = int
    i8: TypeAlias = int
    i16: TypeAlias = int
    i32: TypeAlias = int
    i64: TypeAlias = int
    u16be: TypeAlias = int
    u32be: TypeAlias = int
    u64be: TypeAlias = int
    bytes4: TypeAlias = bytes
    bytes6: TypeAlias = bytes
    bytes8: TypeAlias = bytes
    bytes16: TypeAlias = bytes
else:
    u8 = Annotated[int, Scalar(1)]
    u16 = Annotated[int, Scalar(2)]
    u32 = Annotated[int, Scalar(4)]
    u64 = Annotated[int, Scalar(8)]
    i8 = Annotated[int, Scalar(1, signed=True)]
    i16 = Annotated[int, Scalar(2, signed=True)]
    i32 = Annotated[int, Scalar(4, signed=True)]
    i64 = Annotated[int, Scalar(8, signed=True)]
    u16be = Annotated[int, Scalar(2, big=True)]
    u32be = Annotated[int, Scalar(4, big=True)]
    u64be = Annotated[int, Scalar(8, big=True)]
    bytes4 = Annotated[bytes, Items(u8, 4)]
    bytes6 = Annotated[bytes, Items(u8, 6)]
    bytes8 = Annotated[bytes, Items(u8, 8)]
    bytes16 = Annotated[bytes, Items(u8, 16)]


class Struct:
    """Base of struct types: ``class State(Struct): tokens: u64; seen: u64``.

    In a program an instance lies on the stack, in a map or in a packet. In Python it has the
    same fields, and `encode` and `decode` translate to and from a map's bytes. Fields not given
    are zero. ``class Arp(Struct, packed=True)`` leaves out C's padding.
    """

    packed: ClassVar[bool] = False

    def __init_subclass__(cls, *, packed: bool = False) -> None:
        cls.packed = packed

    def __init__(self, **fields: int | bytes | Sequence[int] | Struct) -> None:
        layout = struct_type(type(self))
        for name in fields:
            if name not in layout.fields:
                raise UsageError(f"{layout.name} has no field '{name}'")
        for field in layout.fields.values():
            setattr(self, field.name, fields.get(field.name, _zero(field.layout)))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.encode())

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"

    def encode(self) -> bytes:
        """The bytes as they lie in a map; UsageError when a value does not fit its field."""
        layout = struct_type(type(self))
        data = bytearray(layout.size)
        for field in layout.fields.values():
            value = encode(field.layout, getattr(self, field.name), field.name)
            data[field.offset : field.offset + len(value)] = value
        return bytes(data)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From a map's bytes; UsageError when there are not as many as the struct has."""
        layout = struct_type(cls)
        if len(data) < layout.size:
            raise UsageError(f"{layout.name} has {layout.size} bytes, not {len(data)}")
        values = {
            field.name: decode(field.layout, data[field.offset : field.offset + field.layout.size])
            for field in layout.fields.values()
        }
        return cls(**values)


def encode(layout: Layout, value: Any, name: str = "value") -> bytes:
    """A Python value as bytes of that layout."""
    if isinstance(layout, Scalar):
        try:
            return int(value).to_bytes(
                layout.size, "big" if layout.big else "little", signed=layout.signed
            )
        except OverflowError as error:
            raise UsageError(f"{name}: {value} does not fit into {layout.size} bytes") from error
    if isinstance(layout, StructType):
        return cast("Struct", value).encode()
    if len(value) != layout.count:
        raise UsageError(f"{name}: {layout.count} elements are wanted, not {len(value)}")
    return b"".join(encode(layout.element, item, name) for item in value)


def decode(layout: Layout, data: bytes) -> Any:
    """The Python value of bytes of that layout."""
    if isinstance(layout, Scalar):
        order = "big" if layout.big else "little"
        return int.from_bytes(data[: layout.size], order, signed=layout.signed)
    if isinstance(layout, StructType):
        return layout.made.decode(data)
    if layout.element == Scalar(1):
        return bytes(data[: layout.size])
    size = layout.element.size
    return [decode(layout.element, data[i * size : (i + 1) * size]) for i in range(layout.count)]


def _zero(layout: Layout) -> Any:
    return decode(layout, bytes(layout.size))


_STRUCTS: dict[type[Struct], StructType] = {}


def struct_type(made: type[Struct]) -> StructType:
    """The layout of a struct class; its base classes' fields come first."""
    known = _STRUCTS.get(made)
    if known is not None:
        return known
    fields: dict[str, Field] = {}
    offset, align = 0, 1
    for name, annotation in get_type_hints(made, include_extras=True).items():
        if get_origin(annotation) is ClassVar or name == "packed":
            continue
        layout = layout_of(annotation, f"{made.__name__}.{name}")
        step = 1 if made.packed else layout.align
        offset = -(-offset // step) * step
        fields[name] = Field(name, offset, layout)
        offset += layout.size
        align = max(align, step)
    size = -(-offset // align) * align
    result = StructType(made.__name__, fields, size, align, made)
    _STRUCTS[made] = result
    return result


def layout_of(annotation: Any, name: str = "type") -> Layout:
    """The layout an annotation means; UsageError when it means none."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return struct_type(annotation)
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, Scalar):
                return extra
            if isinstance(extra, Items):
                return ArrayType(layout_of(extra.element, name), extra.count)
    if annotation is int:
        return Scalar(8)
    if annotation is bool:
        return Scalar(1)
    raise UsageError(f"{name}: {annotation!r} is no type of a compiled program")
