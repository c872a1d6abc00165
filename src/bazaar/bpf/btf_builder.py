"""Writes the small BTF blobs that go with our own programs and maps.

The format is the kernel's Documentation/bpf/btf.rst: a header, type records numbered from 1,
and strings.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bazaar.bpf import syscall
from bazaar.bpf.asm import Instruction, SourceLine, positions
from bazaar.bpf.opcodes import CALL, LD_IMM64, PSEUDO_CALL, PSEUDO_FUNC
from bazaar.bpf.syscall import Command, Descriptor, address, buffer

MAGIC = 0xEB9F
_INT, _ARRAY, _FUNC, _FUNC_PROTO = 1, 3, 12, 13
# Line numbers and columns share 32 bits: 22 and 10.
_MAX_LINE, _MAX_COLUMN = (1 << 22) - 1, (1 << 10) - 1


class BtfBuilder:
    """Collects types and strings; each method gives the number of what it added."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = bytearray(b"\0")
        self._places: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        """The offset of a string; the same text is kept once. NUL ends a string in BTF."""
        text = text.split("\0", 1)[0]
        if text not in self._places:
            self._places[text] = len(self._strings)
            self._strings += text.encode("utf-8", "replace") + b"\0"
        return self._places[text]

    def integer(self, name: str, size: int, *, signed: bool = False) -> int:
        """An integer of ``size`` bytes."""
        return self._add(name, _INT, 0, size, struct.pack("<I", (signed << 24) | size * 8))

    def array(self, element: int, index: int, count: int) -> int:
        """``count`` elements of a type."""
        return self._add("", _ARRAY, 0, 0, struct.pack("<III", element, index, count))

    def function_type(self, result: int) -> int:
        """A function without parameters."""
        return self._add("", _FUNC_PROTO, 0, result, b"")

    def function(self, name: str, kind: int, linkage: int = 0) -> int:
        """A function: linkage 0 is static, 1 global (then verified by its types alone)."""
        return self._add(name, _FUNC, linkage, kind, b"")

    def _add(self, name: str, kind: int, low: int, size_or_type: int, rest: bytes) -> int:
        head = struct.pack("<III", self.string(name), kind << 24 | low, size_or_type)
        self._types.append(head + rest)
        return len(self._types)

    def to_bytes(self) -> bytes:
        """The blob as BPF_BTF_LOAD takes it."""
        types = b"".join(self._types)
        header = struct.pack(
            "<HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings)
        )
        return header + types + bytes(self._strings)

    def load(self) -> Descriptor:
        """Hand it to the kernel; KernelError when it is refused or the kernel has no BTF."""
        return load(self.to_bytes())


def load(blob: bytes) -> Descriptor:
    """Load a BTF blob into the kernel."""
    place = buffer(blob)
    attributes = bytearray(struct.pack("<QQIII", address(place), 0, len(blob), 0, 0))
    return Descriptor(syscall.bpf(Command.BTF_LOAD, attributes, "cannot load BTF"))


def load_storage_types(value_size: int) -> Descriptor:
    """Types 1 (an int, the key) and 2 (bytes, the value), as local storage maps demand."""
    builder = BtfBuilder()
    number = builder.integer("int", 4, signed=True)
    builder.array(3, number, value_size)
    builder.integer("byte", 1)
    return builder.load()


class ProgramTypes:
    """The BTF of one program: its functions and the source line of each instruction.

    ``functions`` and ``lines`` are the arrays bpf(2) takes as func_info and line_info.
    """

    FUNCTION_RECORD = 8
    LINE_RECORD = 16

    def __init__(self, name: str, instructions: Sequence[Instruction]) -> None:
        builder = BtfBuilder()
        result = builder.integer("int", 4, signed=True)
        kind = builder.function_type(result)
        slots, labels = positions(instructions)
        starts = {0: name}
        for label in _called(instructions):
            if label in labels:
                starts[labels[label]] = label
        self._functions = b"".join(
            struct.pack("<II", slot, builder.function(identifier(starts[slot]), kind))
            for slot in sorted(starts)
        )
        self._lines = b"".join(_line_records(builder, slots, instructions, frozenset(starts)))
        self._blob = builder.to_bytes()

    @property
    def functions(self) -> bytes:
        return self._functions

    @property
    def lines(self) -> bytes:
        return self._lines

    def load(self) -> Descriptor:
        return load(self._blob)


def _called(instructions: Sequence[Instruction]) -> list[str]:
    return [
        item.target
        for item in instructions
        if item.target is not None
        and (
            (item.opcode == CALL and item.src == PSEUDO_CALL)
            or (item.opcode == LD_IMM64 and item.src == PSEUDO_FUNC)
        )
    ]


def _line_records(
    builder: BtfBuilder,
    slots: Sequence[int],
    instructions: Sequence[Instruction],
    starts: frozenset[int],
) -> list[bytes]:
    """One record where the line changes, and one at the start of each function."""
    records: list[bytes] = []
    last: SourceLine | None = None
    known = next((item.line for item in instructions if item.line is not None), None)
    for slot, item in zip(slots, instructions, strict=True):
        line = item.line or (last or known)
        if line is None or (line == last and slot not in starts):
            continue
        place = min(line.line, _MAX_LINE) << 10 | min(line.column, _MAX_COLUMN)
        text = builder.string(line.text.strip())
        records.append(struct.pack("<IIII", slot, builder.string(line.file), text, place))
        last = line
    return records


def identifier(name: str) -> str:
    """A name as BTF takes a function's: a C identifier."""
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in name) or "_"
    return f"_{kept}" if kept[0].isdigit() else kept
