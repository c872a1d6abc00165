"""The passes on small programs: what they make of them, and that they stay legal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.bpf import arithmetic
from bazaar.bpf.builder import Builder
from bazaar.bpf.interpret import InterpretError, Machine
from bazaar.bpf.ir import (
    COMPARISONS,
    Binary,
    Branch,
    Function,
    Jump,
    Label,
    Load,
    Move,
    Reg,
    Return,
    Slot,
    Store,
)
from bazaar.bpf.legal import check, problems
from bazaar.bpf.passes import optimise
from bazaar.errors import CompileError

OPERATORS = [
    "add", "sub", "mul", "div", "mod", "sdiv", "smod", "and", "or", "xor", "lsh", "rsh", "arsh",
    *sorted(COMPARISONS),
]  # fmt: skip
EDGES = [0, 1, 2, 3, 4, 7, 8, 63, 64, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1, -8]


@pytest.mark.parametrize("op", OPERATORS)
def test_rewrites_by_constants_are_equal(op) -> None:
    """Every operator with every constant on either side, on every edge value."""
    for constant in EDGES:
        for left in (True, False):
            b = Builder("f")
            x = b.load(b.context, 0, 8)
            b.return_(b.binary(op, constant, x) if left else b.binary(op, x, constant))
            best = optimise(b.finish(), check=True)
            for value in EDGES:
                machine = Machine()
                word = arithmetic.unsigned(value).to_bytes(8, "little")
                context = machine.regions.add(bytearray(word))
                pair = (constant, value) if left else (value, constant)
                assert machine.run(best, context) == arithmetic.binary(op, *pair)


def kinds(function: Function) -> list[str]:
    return [type(node).__name__ for node in function.code]


def test_constants_vanish() -> None:
    b = Builder("f")
    five = b.binary("add", 2, 3)
    b.return_(b.binary("mul", five, b.unary("neg", five)))
    assert kinds(optimise(b.finish())) == ["Return"]
    b = Builder("f")
    with b.when("lt", b.move(3), 2):
        b.return_(1)
    b.return_(2)
    best = optimise(b.finish())
    assert [node.value for node in best.code if isinstance(node, Return)] == [2]


def test_compare_and_branch_fuse() -> None:
    b = Builder("f")
    x = b.load(b.context, 0, 8)
    less = b.binary("slt", x, 5)
    no = b.binary("eq", less, 0)
    with b.when("ne", no, 0):
        b.return_(1)
    b.return_(0)
    best = optimise(b.finish(), check=True)
    assert [node.op for node in best.code if isinstance(node, Branch)] == ["slt"]
    assert not any(isinstance(node, Binary) for node in best.code)


def test_byte_order_is_compared_as_it_lies() -> None:
    b = Builder("f")
    kind = b.byte_swap(b.load(b.context, 0, 2), 2)
    with b.when("eq", kind, 0x0800):
        b.return_(1)
    b.return_(0)
    best = optimise(b.finish(), check=True)
    assert kinds(best)[:2] == ["Load", "Branch"]
    assert [node.right for node in best.code if isinstance(node, Branch)] == [0x0008]


def test_loops_of_copies_end() -> None:
    """Code that is never reached may copy in circles."""
    a, b, context = Reg(1), Reg(2), Reg(0)
    function = Function("f", context, (Return(0), Label("x"), Move(a, b), Move(b, a), Jump("x")))
    assert kinds(optimise(function)) == ["Return"]


def test_variables_in_loops_are_kept() -> None:
    b = Builder("f")
    total, before = b.move(0), b.move(0)
    with b.loop(5) as index:
        b.move(total, before)
        b.binary("add", total, index, total)
    b.return_(b.binary("add", b.binary("mul", total, 100), before))
    assert Machine().run(optimise(b.finish(), check=True)) == 1006


CONTEXT, OTHER = Reg(0), Reg(1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ((Return(OTHER),), "may be read before it is written"),
        ((Move(OTHER, 1),), "runs past its end"),
        ((Jump("x"),), "stands nowhere"),
        ((Label("x"), Label("x"), Jump("x")), "stands twice"),
        ((Store(Slot(0, 8), 8, 4, 1), Return(0)), "outside of its slot"),
        ((Store(Slot(0, 8), 2, 4, 1), Return(0)), "not aligned"),
        ((Load(OTHER, CONTEXT, 40000, 4), Return(0)), "beyond 16 bits"),
    ],
)
def test_illegal_code_is_told(code, message) -> None:
    function = Function("f", CONTEXT, code)
    assert any(message in problem for problem in problems(function))
    with pytest.raises(CompileError, match="illegal code after 'this'"):
        check(function, after="this")


@given(st.integers(0, 1 << 40), st.sampled_from([1, 2, 4, 8]))
def test_interpreter_refuses_stray_accesses(address, size) -> None:
    function = Function("f", CONTEXT, (Load(OTHER, CONTEXT, 0, size), Return(OTHER)))
    with pytest.raises(InterpretError, match="nowhere"):
        Machine().run(function, address)
