"""The builder that front-ends lower with: one method an operation of the IR.

See `bazaar.bpf.ir` for what the instructions mean and for an example.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from bazaar.bpf import helpers
from bazaar.bpf.ir import (
    INVERSE,
    STACK_FOR_SLOTS,
    AddressOf,
    Argument,
    AtomicAdd,
    Base,
    Binary,
    BinaryOp,
    Branch,
    ByteSwap,
    Call,
    CallKernel,
    Comparison,
    Condition,
    Extend,
    Function,
    Jump,
    Label,
    Load,
    MapAddress,
    MapRef,
    Memory,
    Move,
    Node,
    Operand,
    Reg,
    Return,
    Size,
    Slot,
    Store,
    Unary,
)
from bazaar.errors import CompileError
from bazaar.model.record import replace

if TYPE_CHECKING:
    from bazaar.bpf.asm import SourceLine


class Builder:
    """Appends instructions to a function, one method an operation.

    ``bail`` is what the program returns if its scratch memory cannot be looked up.
    Set ``line`` before appending; each instruction keeps it.
    """

    def __init__(self, name: str, *, bail: int = 0) -> None:
        self.name = name
        self.bail = bail
        self.line: SourceLine | None = None
        self.code: list[Node] = []
        self._registers = 0
        self._labels = 0
        self._slots = 0
        self._stack = 0
        self._scratch = 0
        self._scratch_base: Reg | None = None
        self.context = self.register("context")

    # registers, memory, labels

    def register(self, name: str = "") -> Reg:
        """A new virtual register, not written yet."""
        self._registers += 1
        return Reg(self._registers - 1, name)

    def slot(self, size: int, align: int = 8) -> Memory:
        """Memory on the stack, always."""
        self._stack = -(-self._stack // align) * align + size
        self._slots += 1
        return Memory(Slot(self._slots - 1, size, align))

    def buffer(self, size: int, align: int = 8) -> Memory:
        """Memory for ``size`` bytes, content undefined (scratch keeps what was there): on the
        stack while there is room, else in the per-CPU scratch map. Zero it before the kernel
        reads it. Where it lies makes no difference to its use."""
        if -(-self._stack // align) * align + size <= STACK_FOR_SLOTS:
            return self.slot(size, align)
        if self._scratch_base is None:
            self._scratch_base = self.register("scratch")
        offset = -(-self._scratch // 8) * 8
        self._scratch = offset + size
        return Memory(self._scratch_base, offset)

    def label(self, hint: str = "l") -> str:
        """A new label's name; `place` puts it."""
        self._labels += 1
        return f"{hint}{self._labels}"

    def place(self, label: str) -> None:
        """The label stands here."""
        self.append(Label(label))

    def append(self, node: Node) -> None:
        """Any instruction, as it is; takes the current line if it has none."""
        if node.line is None and self.line is not None:
            node = replace(node, line=self.line)
        self.code.append(node)

    def _put(self, dst: Reg | None) -> Reg:
        return dst if dst is not None else self.register()

    # values

    def move(self, src: Operand, dst: Reg | None = None) -> Reg:
        """A copy of an operand (also a constant) in ``dst`` or a new register."""
        dst = self._put(dst)
        self.append(Move(dst, src, line=self.line))
        return dst

    def binary(self, op: BinaryOp, left: Operand, right: Operand, dst: Reg | None = None) -> Reg:
        """left op right; comparisons give 0 or 1."""
        dst = self._put(dst)
        self.append(Binary(dst, op, left, right, line=self.line))
        return dst

    def unary(self, op: Literal["neg", "not"], src: Operand, dst: Reg | None = None) -> Reg:
        """-src or ~src."""
        dst = self._put(dst)
        self.append(Unary(dst, op, src, line=self.line))
        return dst

    def extend(
        self, src: Operand, size: Size, *, signed: bool = False, dst: Reg | None = None
    ) -> Reg:
        """The low ``size`` bytes, zero- or sign-extended: a C cast."""
        dst = self._put(dst)
        self.append(Extend(dst, src, size, signed, line=self.line))
        return dst

    def byte_swap(self, src: Operand, size: Literal[2, 4, 8], dst: Reg | None = None) -> Reg:
        """ntohs, ntohl: the low ``size`` bytes reversed."""
        dst = self._put(dst)
        self.append(ByteSwap(dst, src, size, line=self.line))
        return dst

    # memory

    def load(
        self,
        base: Base | Memory,
        offset: int,
        size: Size,
        *,
        signed: bool = False,
        dst: Reg | None = None,
    ) -> Reg:
        """Read from the context, a stack slot, a map value or a packet."""
        dst = self._put(dst)
        base, offset = _address(base, offset)
        self.append(Load(dst, base, offset, size, signed, line=self.line))
        return dst

    def store(self, base: Base | Memory, offset: int, size: Size, value: Operand) -> None:
        """Write 1, 2, 4 or 8 bytes."""
        base, offset = _address(base, offset)
        self.append(Store(base, offset, size, value, line=self.line))

    def atomic_add(self, base: Base | Memory, offset: int, size: Size, value: Operand) -> None:
        """Add atomically to 4 or 8 bytes of a map value."""
        base, offset = _address(base, offset)
        self.append(AtomicAdd(base, offset, size, value, line=self.line))

    def address_of(self, memory: Memory, dst: Reg | None = None) -> Reg:
        """The address in a register, e.g. to add a variable to it."""
        dst = self._put(dst)
        self.append(AddressOf(dst, memory, line=self.line))
        return dst

    def copy(self, to: Base | Memory, source: Base | Memory, size: int, *, align: Size = 8) -> None:
        """Copy bytes, unrolled; ``align`` is what both addresses are aligned to at least."""
        to_base, to_offset = _address(to, 0)
        base, offset = _address(source, 0)
        for at, width in pieces(size, align):
            value = self.load(base, offset + at, width)
            self.store(to_base, to_offset + at, width, value)

    def zero(self, to: Base | Memory, size: int, *, align: Size = 8) -> None:
        """Fill with zeroes, unrolled; ``align`` is what the address is aligned to at least."""
        base, offset = _address(to, 0)
        for at, width in pieces(size, align):
            self.store(base, offset + at, width, 0)

    def bytes_(self, to: Base | Memory, data: bytes, *, align: Size = 8) -> None:
        """Write constant bytes, unrolled."""
        base, offset = _address(to, 0)
        for at, width in pieces(len(data), align):
            value = int.from_bytes(data[at : at + width], "little")
            self.store(base, offset + at, width, value)

    # maps and calls

    def map_address(self, name: str, dst: Reg | None = None) -> Reg:
        """The map itself in a register (calls take `MapRef` directly)."""
        dst = self._put(dst)
        self.append(MapAddress(dst, MapRef(name), line=self.line))
        return dst

    def map_value(self, name: str, offset: int = 0, dst: Reg | None = None) -> Reg:
        """The address of the value of an array map with one entry: no call, never null."""
        dst = self._put(dst)
        self.append(MapAddress(dst, MapRef(name), value=True, offset=offset, line=self.line))
        return dst

    def call(self, helper: str | int, *arguments: Argument, dst: Reg | None = None) -> Reg:
        """Call a helper by the kernel's name (without `bpf_`) or number."""
        dst = self._put(dst)
        number = helper if isinstance(helper, int) else helpers.number(helper)
        if number is None:
            raise CompileError(f"the kernel has no BPF helper named {helper}")
        self.append(Call(dst, number, arguments, line=self.line))
        return dst

    def call_kernel(self, function: str, *arguments: Argument, dst: Reg | None = None) -> Reg:
        """Call a kfunc by name."""
        dst = self._put(dst)
        self.append(CallKernel(dst, function, arguments, line=self.line))
        return dst

    def lookup(self, map_name: str, key: Memory | Reg, dst: Reg | None = None) -> Reg:
        """Pointer to the value, or 0; compare with 0 before any use."""
        return self.call(1, MapRef(map_name), key, dst=dst)

    def update(
        self,
        map_name: str,
        key: Memory | Reg,
        value: Memory | Reg,
        flags: Operand = 0,
        dst: Reg | None = None,
    ) -> Reg:
        """Insert or replace; 0 or a negative errno. flags: 0 any, 1 new only, 2 existing only."""
        return self.call(2, MapRef(map_name), key, value, flags, dst=dst)

    def delete(self, map_name: str, key: Memory | Reg, dst: Reg | None = None) -> Reg:
        """Remove; 0 or a negative errno."""
        return self.call(3, MapRef(map_name), key, dst=dst)

    # control

    def jump(self, label: str) -> None:
        """Go on at the label."""
        self.append(Jump(label, line=self.line))

    def branch(self, op: Condition, left: Operand, right: Operand, label: str) -> None:
        """Go on at the label when the condition holds."""
        self.append(Branch(op, left, right, label, line=self.line))

    def return_(self, value: Operand = 0) -> None:
        """End the program."""
        self.append(Return(value, line=self.line))

    @contextmanager
    def when(self, op: Comparison, left: Operand, right: Operand) -> Generator[None]:
        """What is appended inside runs only when the condition holds."""
        end = self.label("end")
        self.branch(INVERSE[op], left, right, end)
        yield
        self.place(end)

    @contextmanager
    def loop(self, count: Operand, *, limit: int | None = None) -> Generator[Reg]:
        """Run what is appended inside with the index 0, 1, … below ``count``. The verifier walks
        every round, so the count must have a bound it can see: a constant, or ``limit``."""
        head, end = self.label("loop"), self.label("end")
        index = self.move(0, self.register("index"))
        self.place(head)
        self.branch("ge", index, count, end)
        if limit is not None:
            self.branch("ge", index, limit, end)
        yield index
        self.binary("add", index, 1, index)
        self.jump(head)
        self.place(end)

    def finish(self) -> Function:
        """The function; the scratch memory's prologue is put in front where it is needed."""
        name = f"{self.name[:11]}_tmp" if self._scratch else ""
        function = Function(self.name, self.context, tuple(self.code), self._scratch, name)
        if self._scratch_base is None:
            return function
        body, self.code = self.code, []
        key = Memory(Slot(self._slots, 4, 4))
        ready = self.label("ready")
        self.line = body[0].line if body else None
        self.store(key, 0, 4, 0)
        self.lookup(name, key, dst=self._scratch_base)
        self.branch("ne", self._scratch_base, 0, ready)
        self.return_(self.bail)
        self.place(ready)
        self.code += body
        return replace(function, code=tuple(self.code))


def _address(base: Base | Memory, offset: int) -> tuple[Base, int]:
    if isinstance(base, Memory):
        return base.base, base.offset + offset
    return base, offset


def pieces(size: int, align: int) -> list[tuple[int, Size]]:
    """Offsets and widths of the loads or stores that cover ``size`` bytes."""
    found: list[tuple[int, Size]] = []
    at = 0
    widths: tuple[Size, ...] = (8, 4, 2, 1)
    for width in widths:
        while width <= align and size - at >= width:
            found.append((at, width))
            at += width
    return found
