"""Random IR: what the kernel computes is what the interpreter computes, with and without passes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bazaar.bpf import arithmetic
from bazaar.bpf.builder import Builder
from bazaar.bpf.emit import emit, scratch_map
from bazaar.bpf.interpret import Machine
from bazaar.bpf.ir import COMPARISONS, Function, Reg
from bazaar.bpf.maps import create
from bazaar.bpf.passes import PASSES, optimise
from bazaar.bpf.programs import ProgramSpec, ProgramType, load
from bazaar.errors import CompileError

WORD = (1 << 64) - 1
PACKET = 64
INTERESTING = [0, 1, 2, 3, 7, 8, 63, 64, 255, 256, 65535, 1 << 31, (1 << 31) - 1, 1 << 32, WORD]
numbers = st.sampled_from(INTERESTING) | st.integers(0, WORD) | st.integers(-300, 300)
ARITHMETIC = ["add", "sub", "mul", "div", "mod", "sdiv", "smod", "and", "or", "xor", "lsh", "rsh"]
OPERATORS = [*ARITHMETIC, "arsh", *sorted(COMPARISONS)]
CONDITIONS = [*sorted(COMPARISONS), "set"]


def run_kernel(function: Function, data: bytes, version: int = 3) -> bytes:
    """The packet after the program ran on it."""
    instructions = tuple(emit(function, version=version))
    scratch = scratch_map(function)
    maps = {scratch.name: create(scratch)} if scratch else {}
    try:
        with load(ProgramSpec("t", ProgramType.XDP, instructions), maps) as program:
            result = program.run(data)
            assert result.value == 2
            return result.data
    finally:
        for one in maps.values():
            one.close()


def run_interpreter(function: Function, data: bytes) -> bytes:
    machine = Machine(functions={"get_smp_processor_id": lambda _machine, _arguments: 0})
    packet = bytearray(data)
    start = machine.regions.add(packet)
    context = machine.regions.add(bytearray(struct.pack("<QQ", start, start + len(data))))
    # An XDP context holds 32-bit fields the kernel turns into pointers; here they are 64-bit.
    code = []
    for node in function.code:
        if type(node).__name__ == "Load" and node.base is function.context:
            node = type(node)(node.dst, node.base, node.offset * 2, 8)
        code.append(node)
    function = Function(
        function.name, function.context, tuple(code), function.scratch, function.scratch_name
    )
    assert machine.run(function, context) == 2
    return bytes(packet)


class Program:
    """Builds a program of random operations over values from the packet; results go into it."""

    def __init__(self, draw: st.DrawFn, inputs: int) -> None:
        self.draw = draw
        self.b = b = Builder("t", bail=1)
        data, end = b.load(b.context, 0, 4), b.load(b.context, 4, 4)
        with b.when("gt", b.binary("add", data, PACKET), end):
            b.return_(1)
        self.data = data
        self.values: list[Reg] = [b.load(data, 8 * i, 8) for i in range(inputs)]

    def operand(self) -> Reg | int:
        if self.draw(st.booleans()):
            return self.draw(st.sampled_from(self.values))
        return self.draw(numbers)

    def step(self, depth: int = 0) -> None:
        b, draw = self.b, self.draw
        kind = draw(st.integers(0, 11))
        old = draw(st.sampled_from(self.values)) if draw(st.integers(0, 3)) == 0 else None
        if kind <= 5:
            new = b.binary(draw(st.sampled_from(OPERATORS)), self.operand(), self.operand(), old)
        elif kind == 6:
            new = b.unary(draw(st.sampled_from(["neg", "not"])), self.operand(), old)
        elif kind == 7:
            size = draw(st.sampled_from([1, 2, 4, 8]))
            new = b.extend(self.operand(), size, signed=draw(st.booleans()), dst=old)
        elif kind == 8:
            new = b.byte_swap(self.operand(), draw(st.sampled_from([2, 4, 8])), old)
        elif kind == 9 and depth < 3:
            self.branch(depth)
            return
        elif kind == 10:
            slot = b.slot(8)
            size = draw(st.sampled_from([1, 2, 4, 8]))
            b.store(slot, 0, 8, self.operand())
            b.store(slot, 0, size, self.operand())
            signed = draw(st.booleans()) and size < 8
            new = b.load(slot, 0, size, signed=signed, dst=old)
        else:
            new = b.move(self.operand(), old)
            if draw(st.booleans()):
                b.call("get_smp_processor_id")  # overwrites r0 to r5
        if old is None:
            self.values.append(new)

    def branch(self, depth: int) -> None:
        b, draw = self.b, self.draw
        other, end = b.label("other"), b.label("end")
        b.branch(draw(st.sampled_from(CONDITIONS)), self.operand(), self.operand(), other)
        known = len(self.values)
        for _ in range(draw(st.integers(0, 3))):
            self.step(depth + 1)
        del self.values[known:]
        if draw(st.booleans()):
            b.jump(end)
        b.place(other)
        for _ in range(draw(st.integers(0, 3))):
            self.step(depth + 1)
        del self.values[known:]
        b.place(end)

    def finish(self) -> Function:
        for index in range(8):
            self.b.store(self.data, 8 * index, 8, self.draw(st.sampled_from(self.values)))
        self.b.return_(2)
        return self.b.finish()


@st.composite
def programs(draw: st.DrawFn, steps: int = 14, inputs: int = 4) -> Function:
    program = Program(draw, inputs)
    for _ in range(draw(st.integers(1, steps))):
        program.step()
    return program.finish()


packets = st.lists(numbers, min_size=8, max_size=8).map(
    lambda values: b"".join(struct.pack("<Q", value & WORD) for value in values)
)


@settings(max_examples=120, deadline=None)
@given(programs(), packets, st.sampled_from([3, 4]))
def test_kernel_agrees_with_interpreter(function: Function, data: bytes, version: int) -> None:
    expected = run_interpreter(function, data)
    best = optimise(function, check=True)
    assert run_interpreter(best, data) == expected
    assert run_kernel(best, data, version) == expected


@settings(max_examples=60, deadline=None)
@given(programs(), packets, st.sampled_from([3, 4]))
def test_without_passes_it_is_the_same(function: Function, data: bytes, version: int) -> None:
    assert run_kernel(function, data, version) == run_interpreter(function, data)


@settings(max_examples=150, deadline=None)
@given(programs(), packets, st.sampled_from(PASSES))
def test_each_pass_alone_changes_nothing(function, data, named) -> None:
    from dataclasses import replace

    from bazaar.bpf.legal import check

    name, run = named
    changed = replace(function, code=tuple(run(list(function.code))))
    check(changed, after=name)
    assert run_interpreter(changed, data) == run_interpreter(function, data)


@settings(max_examples=40, deadline=None)
@given(st.data(), packets, st.integers(12, 40))
def test_register_pressure_spills(data_, data: bytes, count: int) -> None:
    """All values are computed first and all are used at the end."""
    b = Builder("t", bail=1)
    start, end = b.load(b.context, 0, 4), b.load(b.context, 4, 4)
    with b.when("gt", b.binary("add", start, PACKET), end):
        b.return_(1)
    inputs = [b.load(start, 8 * i, 8) for i in range(8)]
    values = []
    for index in range(count):
        op = data_.draw(st.sampled_from([*ARITHMETIC[:3], "xor", "or"]))
        values.append(b.binary(op, inputs[index % 8], index * 0x1234567 + 1))
    if data_.draw(st.booleans()):
        b.call("get_smp_processor_id")
    total = b.move(0)
    for value in values:
        total = b.binary("xor", b.binary("mul", total, 31), value)
    b.store(start, 0, 8, total)
    b.return_(2)
    function = b.finish()
    expected = run_interpreter(function, data)
    assert run_kernel(function, data) == expected
    assert run_kernel(optimise(function, check=True), data) == expected


@pytest.mark.parametrize("size", [8, 200, 384, 385, 600, 2000])
def test_big_buffers_go_to_scratch(size: int) -> None:
    b = Builder("big", bail=1)
    start, end = b.load(b.context, 0, 4), b.load(b.context, 4, 4)
    with b.when("gt", b.binary("add", start, PACKET), end):
        b.return_(1)
    first, second = b.buffer(size), b.buffer(size)
    b.zero(first, size)
    b.copy(second, first, size)
    value = b.load(start, 0, 8)
    b.store(second, size - 8, 8, value)
    b.store(start, 8, 8, b.binary("add", b.load(second, size - 8, 8), b.load(first, size - 8, 8)))
    b.return_(2)
    function = b.finish()
    assert bool(function.scratch) == (2 * size > 384)
    data = struct.pack("<Q", 77) + bytes(56)
    assert struct.unpack_from("<Q", run_kernel(optimise(function, check=True), data), 8) == (77,)


def test_loop_runs_its_count() -> None:
    b = Builder("loop")
    start, end = b.load(b.context, 0, 4), b.load(b.context, 4, 4)
    with b.when("gt", b.binary("add", start, PACKET), end):
        b.return_(1)
    total = b.move(0)
    with b.loop(10) as index:
        b.binary("add", total, b.binary("mul", index, index), total)
    count = b.load(start, 0, 8)
    with b.loop(count, limit=100):
        b.binary("add", total, 1000, total)
    b.store(start, 0, 8, total)
    b.return_(2)
    function = optimise(b.finish(), check=True)
    for count, expected in ((3, 3285), (100, 100285), (5000, 100285)):
        data = struct.pack("<Q", count) + bytes(56)
        assert struct.unpack_from("<Q", run_kernel(function, data)) == (expected,)


def test_too_much_stack_is_an_error() -> None:
    b = Builder("deep")
    b.zero(b.slot(400), 400)
    b.zero(b.slot(400), 400)
    b.return_(0)
    with pytest.raises(CompileError, match="800 bytes of stack"):
        emit(b.finish())


@given(numbers, numbers, st.sampled_from(OPERATORS))
def test_arithmetic_is_64_bits(left: int, right: int, op) -> None:
    assert 0 <= arithmetic.binary(op, left, right) <= WORD


def texts(function: Function) -> list[str]:
    from bazaar.bpf.asm import assemble
    from bazaar.bpf.disassembler import lines

    return [line.split(") ", 1)[1] for line in lines(assemble(emit(function), {"counts": 3}))]


def test_count_by_name_is_as_short_as_by_hand() -> None:
    """What a C compiler makes of it, instruction for instruction."""
    b = Builder("count")
    key = b.buffer(16)
    size = b.load(b.context, 32, 8)
    big = b.binary("gt", size, 10)
    with b.when("ne", big, 0):
        b.zero(key, 16)
        b.call("get_current_comm", key, 16)
        value = b.lookup("counts", key)
        with b.when("ne", value, 0):
            b.atomic_add(value, 0, 8, b.binary("mul", size, 8))
    b.return_(0)
    assert texts(optimise(b.finish(), check=True)) == [
        "r6 = *(u64 *)(r1 +32)",
        "if r6 <= 0xa goto pc+14",
        "*(u64 *)(r10 -16) = 0",
        "*(u64 *)(r10 -8) = 0",
        "r1 = r10",
        "r1 += -16",
        "r2 = 16",
        "call bpf_get_current_comm#16",
        "r1 = map[fd:3]",
        "r2 = r10",
        "r2 += -16",
        "call bpf_map_lookup_elem#1",
        "if r0 == 0x0 goto pc+2",
        "r6 <<= 3",
        "lock *(u64 *)(r0 +0) += r6",
        "r0 = 0",
        "exit",
    ]
