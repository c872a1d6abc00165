"""Reads BTF: the kernel's description of its own types and functions.

Lazy: a type is decoded when it is asked for, and the kernel's blob is mapped, not read. All
bytes are taken as hostile: what they give is a value or BtfError.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from bazaar.bpf import btf_index
from bazaar.bpf.btf_builder import MAGIC
from bazaar.bpf.btf_index import Index
from bazaar.bpf.btf_types import (
    Array,
    Datasec,
    DeclTag,
    Enum,
    Field,
    Float,
    Forward,
    Func,
    FuncProto,
    Int,
    Kind,
    Member,
    Parameter,
    Ptr,
    Qualifier,
    Struct,
    Type,
    Typedef,
    Var,
    Void,
)  # fmt: skip
from bazaar.errors import BtfError, MissingError

KERNEL = "/sys/kernel/btf/vmlinux"
_DEPTH = 64
_NESTED = 500
_HEADER = struct.Struct("<HBBIIIII")
_THREE = struct.Struct("<III")
_QUALIFIERS = frozenset({Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})


class Btf:
    """The types of one blob, by number or by name."""

    def __init__(self, blob: bytes | mmap.mmap, index_path: str | None = None) -> None:
        """``index_path`` is where the index of names is kept; without it is made in memory.

        BtfError when the blob is malformed.
        """
        self._blob = blob
        types, strings = _sections(blob)
        self._view = memoryview(blob)[types[0] : types[1]]
        self._strings = strings
        section = memoryview(blob)[strings[0] : strings[1]]
        self._index: Index = (
            btf_index.cached(index_path, blob, self._view, section)
            if index_path
            else btf_index.build(self._view, section)
        )
        self._decoded: dict[int, Type] = {0: Void()}

    def __len__(self) -> int:
        """How many types there are, ``void`` included: numbers go below this."""
        return len(self._index.offsets) + 1

    # --- looking up ---

    def find(self, name: str, kind: Kind) -> int:
        """The number of the type of this name and kind; BtfError when there is none."""
        for number in self.find_all(name):
            if self.kind(number) == kind:
                return number
        raise BtfError(f"BTF has no {kind.name.lower()} '{name}'")

    def find_all(self, name: str) -> Iterator[int]:
        """The numbers of all types of this name, whatever their kind."""
        wanted = name.encode()
        for number in self._index.ids(wanted):
            if self._name(self._head(number)[1]) == wanted:
                yield number

    def has(self, name: str, kind: Kind) -> bool:
        """Whether there is a type of this name and kind."""
        return any(self.kind(number) == kind for number in self.find_all(name))

    def kind(self, number: int) -> Kind:
        """What kind a type is of."""
        return Kind(self._head(number)[2] >> 24 & 31) if number else Kind.VOID

    def type(self, number: int) -> Type:
        """A type by its number."""
        known = self._decoded.get(number)
        if known is None:
            known = self._decoded[number] = self._decode(number)
        return known

    def types(self) -> Iterator[Type]:
        """All types in order; slow for a kernel's."""
        return (self.type(number) for number in range(1, len(self)))

    def struct(self, name: str) -> Struct:
        """The struct of this name, or the union, or what a typedef of the name stands for."""
        for number in self.find_all(name):
            if self.kind(number) in {Kind.STRUCT, Kind.UNION, Kind.TYPEDEF}:
                found = self.resolve(number)
                if isinstance(found, Struct):
                    return found
        raise BtfError(f"BTF has no struct or union '{name}'")

    def resolve(self, number: int) -> Type:
        """A type behind its typedefs, const, volatile, restrict and attributes."""
        for _ in range(_DEPTH):
            found = self.type(number)
            if not isinstance(found, Typedef | Qualifier):
                return found
            number = found.target
        raise BtfError(f"BTF type {number} is defined by itself")

    def size(self, number: int) -> int:
        """Bytes a value takes; BtfError for what has no size."""
        count = 1
        for _ in range(_DEPTH):
            found = self.resolve(number)
            if isinstance(found, Array):
                count *= found.count
                number = found.element
            elif isinstance(found, Ptr):
                return count * 8
            elif isinstance(found, Int | Float | Struct | Enum | Datasec):
                return count * found.size
            elif isinstance(found, Var):
                number = found.type
            else:
                raise BtfError(f"BTF type {number} ({found.name or 'unnamed'}) has no size")
        raise BtfError(f"BTF type {number} is nested too deep")

    def field(self, struct_id: int, path: str) -> Field:
        """A member, nested ones separated by dots, e.g. ``sk.__sk_common.skc_family``.

        Members of anonymous structs and unions are found as C finds them. A pointer on the
        way is no nesting: BtfError.
        """
        offset = bits = 0
        number = struct_id
        for name in path.split("."):
            holder = self.resolve(number)
            if not isinstance(holder, Struct):
                raise BtfError(f"BTF type {number} is no struct: it has no '{name}'")
            found = self._member(holder, name, set())
            if found is None:
                kind = "union" if holder.union else "struct"
                raise BtfError(f"{kind} {holder.name or '(anonymous)'} has no member '{name}'")
            offset, bits, number = offset + found.offset, found.bits, found.type
        return Field(path, number, offset, bits)

    def _member(self, holder: Struct, name: str, seen: set[int]) -> Field | None:
        """Depth first; ``seen`` are structs without such a member: none is searched twice."""
        seen.add(holder.id)
        if len(seen) > _NESTED:
            raise BtfError(f"BTF type {holder.id} is nested too deep")
        for member in holder.members:
            if member.name == name:
                return Field(name, member.type, member.offset, member.bits)
        for member in holder.members:
            inner = None if member.name else self.resolve(member.type)
            if isinstance(inner, Struct) and inner.id not in seen:
                found = self._member(inner, name, seen)
                if found is not None:
                    return Field(name, found.type, member.offset + found.offset, found.bits)
        return None

    def spell(self, number: int, depth: int = 0) -> str:  # noqa: PLR0911
        """A type as C writes it, roughly: ``struct task_struct *``, ``char[16]``."""
        found = self.type(number)
        if depth > _DEPTH:
            return "…"
        if isinstance(found, Ptr):
            return f"{self.spell(found.target, depth + 1)} *".replace("* *", "**")
        if isinstance(found, Array):
            return f"{self.spell(found.element, depth + 1)}[{found.count}]"
        if isinstance(found, Struct | Forward):
            return f"{'union' if found.union else 'struct'} {found.name or '(anonymous)'}"
        if isinstance(found, Enum):
            return f"enum {found.name or '(anonymous)'}"
        if isinstance(found, Qualifier):
            inner = self.spell(found.target, depth + 1)
            return inner if found.kind == Kind.TYPE_TAG else f"{found.kind.name.lower()} {inner}"
        return found.name or "function"

    # --- decoding ---

    def _head(self, number: int) -> tuple[int, int, int, int]:
        """(offset of what follows, name's offset, info, size or type) of a type."""
        if not 1 <= number <= len(self._index.offsets):
            raise BtfError(f"BTF has no type {number}")
        place = self._index.offsets[number - 1]
        name, info, rest = self._three(place)
        return place + 12, name, info, rest

    def _three(self, place: int) -> tuple[int, int, int]:
        if place + 12 > len(self._view):
            raise BtfError("BTF types are cut short")
        found: tuple[int, int, int] = _THREE.unpack_from(self._view, place)
        return found

    def _word(self, place: int) -> int:
        if place + 4 > len(self._view):
            raise BtfError("BTF types are cut short")
        found: int = struct.unpack_from("<I", self._view, place)[0]
        return found

    def _name(self, offset: int) -> bytes:
        first, last = self._strings
        start = first + offset
        end = self._blob.find(b"\0", start, last) if start < last else -1
        if end < 0:
            raise BtfError(f"a BTF name lies outside the strings, at {offset}")
        return bytes(self._blob[start:end])

    def _text(self, offset: int) -> str:
        return self._name(offset).decode("utf-8", "replace") if offset else ""

    def _decode(self, number: int) -> Type:  # noqa: PLR0911
        place, name_offset, info, rest = self._head(number)
        kind = info >> 24 & 31
        count, flag = info & 0xFFFF, bool(info >> 31)
        name = self._text(name_offset)
        if kind == Kind.PTR:
            return Ptr(number, rest)
        if kind == Kind.TYPEDEF:
            return Typedef(number, name, rest)
        if kind in _QUALIFIERS:
            return Qualifier(number, Kind(kind), rest, name)
        if kind in {Kind.STRUCT, Kind.UNION}:
            members = self._members(place, count, flag)
            return Struct(number, name, rest, members, kind == Kind.UNION)
        if kind in {Kind.ENUM, Kind.ENUM64}:
            values = self._values(place, count, kind == Kind.ENUM64, flag)
            return Enum(number, name, rest, flag, values)
        if kind in {Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR, Kind.DATASEC, Kind.DECL_TAG}:
            return self._decode_linked(number, Kind(kind), name, place, count, rest)
        return self._decode_plain(number, kind, name, place, rest, flag)

    def _decode_plain(
        self, number: int, kind: int, name: str, place: int, rest: int, flag: bool
    ) -> Type:
        if kind == Kind.INT:
            word = self._word(place)
            encoding = word >> 24 & 15
            return Int(
                number, name, rest, bool(encoding & 1), bool(encoding & 2), bool(encoding & 4),
                word & 0xFF, word >> 16 & 0xFF,
            )  # fmt: skip
        if kind == Kind.ARRAY:
            return Array(number, *self._three(place))
        if kind == Kind.FLOAT:
            return Float(number, name, rest)
        if kind == Kind.FWD:
            return Forward(number, name, flag)
        raise BtfError(f"BTF type {number} is of an unknown kind, {kind}")

    def _decode_linked(
        self, number: int, kind: Kind, name: str, place: int, count: int, rest: int
    ) -> Type:
        if kind == Kind.FUNC:
            return Func(number, name, rest, count)
        if kind == Kind.VAR:
            return Var(number, name, rest, self._word(place))
        if kind == Kind.DECL_TAG:
            component = self._word(place)
            return DeclTag(number, name, rest, component - (component >> 31 << 32))
        if kind == Kind.DATASEC:
            parts = tuple(self._three(place + 12 * part) for part in range(count))
            return Datasec(number, name, rest, parts)
        parameters = tuple(
            Parameter(self._text(self._word(at)), self._word(at + 4))
            for at in range(place, place + 8 * count, 8)
        )
        return FuncProto(number, rest, parameters)

    def _members(self, place: int, count: int, bitfields: bool) -> tuple[Member, ...]:
        members: list[Member] = []
        for at in range(place, place + 12 * count, 12):
            name, kind, offset = self._three(at)
            bits = offset >> 24 if bitfields else 0
            members.append(
                Member(self._text(name), kind, offset & 0xFFFFFF if bitfields else offset, bits)
            )
        return tuple(members)

    def _values(
        self, place: int, count: int, wide: bool, signed: bool
    ) -> tuple[tuple[str, int], ...]:
        values: list[tuple[str, int]] = []
        step, bits = (12, 64) if wide else (8, 32)
        for at in range(place, place + step * count, step):
            value = self._word(at + 4) | (self._word(at + 8) << 32 if wide else 0)
            if signed and value >> bits - 1:
                value -= 1 << bits
            values.append((self._text(self._word(at)), value))
        return tuple(values)


def _sections(blob: bytes | mmap.mmap) -> tuple[tuple[int, int], tuple[int, int]]:
    """(begin, end) of the types and of the strings, checked against the blob."""
    if len(blob) < _HEADER.size:
        raise BtfError("BTF is shorter than its header")
    magic, version, _, length, type_offset, type_size, string_offset, string_size = (
        _HEADER.unpack_from(blob)
    )
    if magic != MAGIC:
        swapped = magic == int.from_bytes(MAGIC.to_bytes(2, "little"), "big")
        raise BtfError("BTF of the other byte order" if swapped else "these bytes are no BTF")
    if version != 1:
        raise BtfError(f"BTF version {version} is not known")
    # Later headers are longer; what they add is passed over.
    types = length + type_offset, length + type_offset + type_size
    strings = length + string_offset, length + string_offset + string_size
    if length < _HEADER.size or max(types[1], strings[1]) > len(blob):
        raise BtfError("BTF's sections lie outside of it")
    if not string_size or blob[strings[0]] or blob[strings[1] - 1]:
        raise BtfError("BTF's strings do not begin and end with NUL")
    return types, strings


def parse(blob: bytes) -> Btf:
    """BTF from bytes, with an index in memory."""
    return Btf(blob)


_kernel: Btf | None = None


def kernel(directory: str | None = None) -> Btf:
    """The running kernel's own BTF, opened once.

    ``directory`` is the cache folder (default: ``btf_index.default_directory()``).
    MissingError when the kernel is built without BTF.
    """
    global _kernel
    if _kernel is None:
        blob = _open(KERNEL)
        folder = directory or btf_index.default_directory()
        name = btf_index.build_id() or os.uname().release.replace("/", "_")
        _kernel = Btf(blob, f"{folder}/btf/{name}.index")
    return _kernel


def _open(path: str) -> bytes | mmap.mmap:
    try:
        with open(path, "rb") as file:
            try:
                # sysfs lets itself be mapped since Linux 6.16.
                return mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
            except (OSError, ValueError):
                return file.read()
    except OSError as error:
        raise MissingError(
            f"this kernel has no BTF ({path}: {error.strerror})",
            hint="it needs a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ) from error
