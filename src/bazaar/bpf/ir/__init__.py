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

from bazaar.bpf.ir.function import Function, show
from bazaar.bpf.ir.instructions import (
    AddressOf,
    AtomicAdd,
    Binary,
    Branch,
    ByteSwap,
    Call,
    CallKernel,
    Extend,
    Jump,
    Label,
    Load,
    MapAddress,
    Move,
    Node,
    Result,
    Return,
    Store,
    Unary,
)
from bazaar.bpf.ir.operands import (
    COMMUTATIVE,
    COMPARISONS,
    INVERSE,
    MIRROR,
    STACK,
    STACK_FOR_SLOTS,
    Argument,
    Arithmetic,
    Base,
    BinaryOp,
    Comparison,
    Condition,
    MapRef,
    Memory,
    Operand,
    Reg,
    Size,
    Slot,
    Substitute,
)

__all__ = [  # noqa: RUF022 - operators and limits, operands, instructions, functions
    "Arithmetic", "BinaryOp", "COMMUTATIVE", "COMPARISONS", "Comparison", "Condition", "INVERSE",
    "MIRROR", "STACK", "STACK_FOR_SLOTS", "Size",
    "Argument", "Base", "MapRef", "Memory", "Operand", "Reg", "Slot", "Substitute",
    "AddressOf", "AtomicAdd", "Binary", "Branch", "ByteSwap", "Call", "CallKernel", "Extend",
    "Jump", "Label", "Load", "MapAddress", "Move", "Node", "Result", "Return", "Store", "Unary",
    "Function", "show",
]  # fmt: skip
