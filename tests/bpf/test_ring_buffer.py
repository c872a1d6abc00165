"""Records that programs write arrive here, in order and whole."""

from __future__ import annotations

import os
import struct
import time

import pytest

from bazaar.bpf import asm, links, maps, programs
from bazaar.bpf.asm import Instruction
from bazaar.bpf.maps import Map, MapSpec, MapType
from bazaar.bpf.opcodes import Atomic, Jump, Size
from bazaar.bpf.programs import Program, ProgramSpec, ProgramType
from bazaar.bpf.ring_buffer import RingBuffer
from bazaar.errors import UsageError
from tests.bpf import kernel

pytestmark = kernel.root

PAGE = os.sysconf("SC_PAGESIZE")


def numbering(length: int, *, discard_odd: bool = False) -> tuple[Instruction, ...]:
    """Reserve ``length`` bytes, write the running number into them, and submit; return 1 when
    there was no room."""
    submit = [
        asm.mov64_reg(1, 0),
        asm.mov64_imm(2, 0),
        asm.call("ringbuf_submit"),
        asm.mov64_imm(0, 0),
        asm.exit_(),
    ]
    odd = [
        asm.jump_imm(Jump.JSET, 6, 1, "drop"),
        *submit,
        asm.mov64_reg(1, 0).labelled("drop"),
        asm.mov64_imm(2, 0),
        asm.call("ringbuf_discard"),
        asm.mov64_imm(0, 0),
        asm.exit_(),
    ]
    return (
        asm.load_map_value(7, "number"),
        asm.mov64_imm(6, 1),
        asm.atomic(Atomic.FETCH_ADD, Size.DW, 7, 0, 6),
        asm.load_map(1, "ring"),
        asm.mov64_imm(2, length),
        asm.mov64_imm(3, 0),
        asm.call("ringbuf_reserve"),
        asm.jump_imm(Jump.JNE, 0, 0, "room"),
        asm.mov64_imm(0, 1),
        asm.exit_(),
        asm.store_reg(Size.DW, 0, 0, 6).labelled("room"),
        *(odd if discard_odd else submit),
    )


class Writer:
    def __init__(self, size: int, code: tuple[Instruction, ...]) -> None:
        self.ring: Map = maps.create(MapSpec("ring", MapType.RINGBUF, 0, 0, size))
        self.number: Map = maps.create(MapSpec("number", MapType.ARRAY, 4, 8, 1))
        self.program: Program = programs.load(
            ProgramSpec(kernel.unique(), ProgramType.RAW_TRACEPOINT, code),
            {"ring": self.ring, "number": self.number},
        )

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for item in (self.program, self.ring, self.number):
            item.close()


@pytest.mark.parametrize("length", [8, 13, 100, 1000])
def test_records_arrive_in_order_over_many_rounds(length: int) -> None:
    with Writer(PAGE, numbering(length)) as writer, RingBuffer(writer.ring) as reader:
        assert reader.poll(0) is False
        seen: list[int] = []
        for _ in range(500):
            assert writer.program.run().value == 0
            assert reader.poll(0)
            for record in reader:
                assert len(record) == length
                seen.append(struct.unpack_from("<Q", record)[0])
        assert seen == list(range(500))
        assert reader.pending == 0


def test_a_full_buffer_loses_the_new_and_keeps_the_old() -> None:
    with Writer(PAGE, numbering(8)) as writer, RingBuffer(writer.ring) as reader:
        refused = sum(writer.program.run().value for _ in range(1000))
        seen = [struct.unpack("<Q", record)[0] for record in reader]
        assert seen == list(range(len(seen)))
        assert 200 < len(seen) <= PAGE // 16
        assert len(seen) + refused == 1000


def test_discarded_records_are_passed_over() -> None:
    code = numbering(8, discard_odd=True)
    with Writer(PAGE, code) as writer, RingBuffer(writer.ring) as reader:
        for _ in range(20):
            writer.program.run()
        assert [struct.unpack("<Q", one)[0] for one in reader] == list(range(0, 20, 2))
        assert reader.pending == 0


def test_waiting_ends_by_time_or_by_a_record() -> None:
    with Writer(PAGE, numbering(8)) as writer, RingBuffer(writer.ring) as reader:
        begun = time.monotonic()
        assert reader.poll(0.1) is False
        assert 0.09 < time.monotonic() - begun < 1
        with (
            programs.load(
                ProgramSpec(kernel.unique(), ProgramType.PERF_EVENT, numbering(8)),
                {"ring": writer.ring, "number": writer.number},
            ) as clock,
            links.interval(clock, 20_000_000),
        ):
            begun = time.monotonic()
            assert reader.poll(5) is True
            assert time.monotonic() - begun < 1
        assert next(iter(reader)) == struct.pack("<Q", 0)


def test_only_ring_buffers() -> None:
    with maps.create(MapSpec("x", MapType.ARRAY, 4, 4, 1)) as table, pytest.raises(UsageError):
        RingBuffer(table)
