"""The intermediate representation both front-ends lower to.

A `Function` is a flat tuple of instructions over virtual registers (`Reg`), each 64 bits wide.
`Label` starts a block, `Branch` falls through when its condition is false, `Return` ends the
program. A register may be written more than once (it is a variable, not an SSA value) but must be
written on every path before it is read. Instructions are frozen; passes build new ones.

What an instruction means is BPF's own arithmetic: 64 bits, wrapping; `div` and `mod` unsigned,
`x / 0 = 0`, `x % 0 = x`; `sdiv` and `smod` round towards zero; shifts take the count modulo 64.
The same is written down executably in `bazaar.bpf.interpret`.

Lowering a program looks like this (`bazaar.bpf.builder`)::

    b = Builder("count_writes")              # b.context is the program's context pointer
    b.line = SourceLine(...)                 # stamped on all that follows
    size = b.load(b.context, 32, 8)
    key = b.buffer(16)                       # stack, or a per-CPU scratch map when it is big
    b.zero(key, 16)
    b.call("get_current_comm", key, 16)      # a Memory argument passes its address
    value = b.lookup("counts", key)          # maps by name; file descriptors come at load time
    with b.when("ne", value, 0):
        b.atomic_add(value, 0, 8, 1)
    b.return_(0)
    function = b.finish()

then `bazaar.bpf.passes.optimise(function)` and `bazaar.bpf.emit.emit(function)`; where
`function.scratch` is not 0 the loader creates `bazaar.bpf.emit.scratch_map(function)` too.

Operands are a `Reg` or an int (any 64-bit value, signed or unsigned). Addresses are a base
(`Reg` holding a pointer, or a stack `Slot`) and a constant offset. Call arguments may be operands,
`Memory` (an address) or `MapRef`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from bazaar.model.record import names, record, replace

if TYPE_CHECKING:
    from bazaar.bpf.asm import SourceLine

Arithmetic = Literal[
    "add", "sub", "mul", "div", "mod", "sdiv", "smod", "and", "or", "xor", "lsh", "rsh", "arsh"
]
Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge", "slt", "sle", "sgt", "sge"]
BinaryOp: TypeAlias = Arithmetic | Comparison
Condition: TypeAlias = Comparison | Literal["set"]  # set: left & right is not 0
Size = Literal[1, 2, 4, 8]

COMPARISONS: frozenset[str] = frozenset(
    ("eq", "ne", "lt", "le", "gt", "ge", "slt", "sle", "sgt", "sge")
)
COMMUTATIVE: frozenset[str] = frozenset(("add", "mul", "and", "or", "xor", "eq", "ne"))
INVERSE: dict[Condition, Condition] = {
    "eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt",
    "slt": "sge", "sge": "slt", "sgt": "sle", "sle": "sgt",
}  # fmt: skip
"""The condition that holds exactly when the key does not (`set` has none)."""
MIRROR: dict[Condition, Condition] = {
    "eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le",
    "slt": "sgt", "sgt": "slt", "sle": "sge", "sge": "sle", "set": "set",
}  # fmt: skip
"""The condition that holds for (right, left) exactly when the key holds for (left, right)."""

STACK = 512
STACK_FOR_SLOTS = 384  # the rest is for spilled registers; beyond, `Builder.buffer` uses scratch


@record(eq=False)
class Reg:
    """A virtual register; two are the same only when they are the same object."""

    number: int
    name: str = ""

    def __repr__(self) -> str:
        return f"%{self.number}{self.name and '.' + self.name}"


@record(eq=False)
class Slot:
    """A piece of the stack: ``size`` bytes, aligned to ``align`` (a power of two, at most 8)."""

    number: int
    size: int
    align: int = 8

    def __repr__(self) -> str:
        return f"${self.number}[{self.size}]"


Base: TypeAlias = Reg | Slot
Operand: TypeAlias = Reg | int


@record
class Memory:
    """An address: ``base`` plus a constant number of bytes."""

    base: Base
    offset: int = 0

    def __add__(self, offset: int) -> Memory:
        return Memory(self.base, self.offset + offset)

    def __repr__(self) -> str:
        return f"[{self.base!r}{self.offset:+d}]" if self.offset else f"[{self.base!r}]"


@record
class MapRef:
    """A map by its name; becomes the pointer to the kernel's map when the program is loaded."""

    name: str

    def __repr__(self) -> str:
        return f"@{self.name}"


Argument: TypeAlias = Operand | Memory | MapRef
Substitute: TypeAlias = Callable[[Reg], Operand]


def _swap(value: Argument, to: Substitute) -> Argument:
    if isinstance(value, Reg):
        return to(value)
    if isinstance(value, Memory):
        return Memory(_swap_base(value.base, to), value.offset)
    return value


def _swap_operand(value: Operand, to: Substitute) -> Operand:
    return to(value) if isinstance(value, Reg) else value


def _swap_base(base: Base, to: Substitute) -> Base:
    """Addresses need a register: a constant instead of it is not taken over."""
    new = to(base) if isinstance(base, Reg) else base
    return base if isinstance(new, int) else new


def _used(*values: Argument | Base) -> tuple[Reg, ...]:
    found: list[Reg] = []
    for value in values:
        if isinstance(value, Memory):
            value = value.base
        if isinstance(value, Reg):
            found.append(value)
    return tuple(found)


@record(kw_only=True)
class Node:
    """What every instruction has: the place in the user's text it comes from."""

    line: SourceLine | None = None
    pure: ClassVar[bool] = False  # may be dropped when its result is not used

    @property
    def target(self) -> str | None:
        """The label this instruction may jump to."""
        return None

    def uses(self) -> tuple[Reg, ...]:
        """The registers read."""
        return ()

    def defines(self) -> Reg | None:
        """The register written."""
        return None

    def substitute(self, to: Substitute) -> Node:
        """The same instruction reading other operands."""
        return self

    def into(self, dst: Reg) -> Node:
        """The same instruction writing another register."""
        return self


@record
class Result(Node):
    """An instruction that writes one register."""

    dst: Reg

    def defines(self) -> Reg | None:
        return self.dst

    def into(self, dst: Reg) -> Node:
        return replace(self, dst=dst)


@record
class Move(Result):
    """dst = src."""

    src: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return Move(self.dst, _swap_operand(self.src, to), line=self.line)


@record
class Binary(Result):
    """dst = left op right; a comparison gives 1 or 0."""

    op: BinaryOp
    left: Operand
    right: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.left, self.right)

    def substitute(self, to: Substitute) -> Node:
        left, right = _swap_operand(self.left, to), _swap_operand(self.right, to)
        return Binary(self.dst, self.op, left, right, line=self.line)


@record
class Unary(Result):
    """dst = -src (`neg`) or ~src (`not`)."""

    op: Literal["neg", "not"]
    src: Operand
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return Unary(self.dst, self.op, _swap_operand(self.src, to), line=self.line)


@record
class Extend(Result):
    """dst = the low ``size`` bytes of src, zero- or sign-extended to 64 bits."""

    src: Operand
    size: Size
    signed: bool = False
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.src)

    def substitute(self, to: Substitute) -> Node:
        src = _swap_operand(self.src, to)
        return Extend(self.dst, src, self.size, self.signed, line=self.line)


@record
class ByteSwap(Result):
    """dst = the low ``size`` bytes of src in reverse order, zero-extended."""

    src: Operand
    size: Literal[2, 4, 8]
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.src)

    def substitute(self, to: Substitute) -> Node:
        return ByteSwap(self.dst, _swap_operand(self.src, to), self.size, line=self.line)


@record
class Load(Result):
    """dst = ``size`` bytes at base + offset, in the machine's byte order."""

    base: Base
    offset: int
    size: Size
    signed: bool = False
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.base)

    def substitute(self, to: Substitute) -> Node:
        base = _swap_base(self.base, to)
        return Load(self.dst, base, self.offset, self.size, self.signed, line=self.line)


@record
class Store(Node):
    """Write the low ``size`` bytes of value at base + offset."""

    base: Base
    offset: int
    size: Size
    value: Operand

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.base, self.value)

    def substitute(self, to: Substitute) -> Node:
        base, value = _swap_base(self.base, to), _swap_operand(self.value, to)
        return Store(base, self.offset, self.size, value, line=self.line)


@record
class AtomicAdd(Node):
    """Add value to the ``size`` (4 or 8) bytes at base + offset, atomically."""

    base: Base
    offset: int
    size: Size
    value: Operand

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.base, self.value)

    def substitute(self, to: Substitute) -> Node:
        base, value = _swap_base(self.base, to), _swap_operand(self.value, to)
        return AtomicAdd(base, self.offset, self.size, value, line=self.line)


@record
class AddressOf(Result):
    """dst = the address itself."""

    memory: Memory
    pure: ClassVar[bool] = True

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.memory)

    def substitute(self, to: Substitute) -> Node:
        base = _swap_base(self.memory.base, to)
        return AddressOf(self.dst, Memory(base, self.memory.offset), line=self.line)


@record
class MapAddress(Result):
    """dst = the map, or with ``value`` the address of an array map's first value + offset."""

    map: MapRef
    value: bool = False
    offset: int = 0
    pure: ClassVar[bool] = True


@record
class Call(Node):
    """Call a helper by number; at most five arguments; dst takes what it returns."""

    dst: Reg | None
    helper: int
    arguments: tuple[Argument, ...] = ()

    def uses(self) -> tuple[Reg, ...]:
        return _used(*self.arguments)

    def defines(self) -> Reg | None:
        return self.dst

    def substitute(self, to: Substitute) -> Node:
        return replace(self, arguments=tuple(_swap(a, to) for a in self.arguments))

    def into(self, dst: Reg) -> Node:
        return replace(self, dst=dst)


@record
class CallKernel(Node):
    """Call a kernel function (kfunc) by name; its BTF id is looked up when loading."""

    dst: Reg | None
    function: str
    arguments: tuple[Argument, ...] = ()

    def uses(self) -> tuple[Reg, ...]:
        return _used(*self.arguments)

    def defines(self) -> Reg | None:
        return self.dst

    def substitute(self, to: Substitute) -> Node:
        return replace(self, arguments=tuple(_swap(a, to) for a in self.arguments))

    def into(self, dst: Reg) -> Node:
        return replace(self, dst=dst)


@record
class Label(Node):
    """A place to jump to."""

    name: str


@record
class Jump(Node):
    """Go on at the label."""

    to: str

    @property
    def target(self) -> str | None:
        return self.to


@record
class Branch(Node):
    """Go on at the label when the condition holds, else with the next instruction."""

    op: Condition
    left: Operand
    right: Operand
    to: str

    @property
    def target(self) -> str | None:
        return self.to

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.left, self.right)

    def substitute(self, to: Substitute) -> Node:
        left, right = _swap_operand(self.left, to), _swap_operand(self.right, to)
        return Branch(self.op, left, right, self.to, line=self.line)


@record
class Return(Node):
    """End the program with this value."""

    value: Operand

    def uses(self) -> tuple[Reg, ...]:
        return _used(self.value)

    def substitute(self, to: Substitute) -> Node:
        return Return(_swap_operand(self.value, to), line=self.line)


@record
class Function:
    """One program. ``context`` holds the context pointer at entry; ``scratch`` is how many
    bytes of per-CPU scratch (map ``scratch_name``) its prologue looks up, 0 for none."""

    name: str
    context: Reg
    code: tuple[Node, ...]
    scratch: int = 0
    scratch_name: str = ""

    def __repr__(self) -> str:
        lines = [f"{self.name}({self.context!r}):"]
        lines += [show(node) for node in self.code]
        return "\n".join(lines)


def show(node: Node) -> str:
    """One instruction as text, for people and golden files."""
    if isinstance(node, Label):
        return f"{node.name}:"
    shown = [
        f"{name}={value}" if name in {"op", "size", "signed", "to"} else repr(value)
        for name in names(node)
        if name not in {"line", "dst"} and (value := getattr(node, name)) is not None
    ]
    dst = node.defines()
    start = f"{dst!r} = " if dst else ""
    return f"  {start}{type(node).__name__.lower()} " + ", ".join(shown)
