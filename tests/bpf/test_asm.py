"""Encodings against bytes written down by hand from RFC 9669, and the way back."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.bpf import asm, helpers, maps, programs
from bazaar.bpf.asm import Instruction, SourceLine, assemble, decode, disassemble
from bazaar.bpf.opcodes import Alu, Atomic, Jump, Size
from bazaar.bpf.programs import ProgramSpec, ProgramType
from bazaar.errors import CompileError
from tests.bpf import kernel

# (instruction, its bytes in hexadecimal, its text)
TABLE = [
    (asm.mov64_imm(0, 1), "b700000001000000", "(b7) r0 = 1"),
    (asm.mov64_reg(6, 1), "bf16000000000000", "(bf) r6 = r1"),
    (asm.mov32_imm(2, -1), "b4020000ffffffff", "(b4) w2 = -1"),
    (asm.mov32_imm(2, 0xFFFFFFFF), "b4020000ffffffff", "(b4) w2 = -1"),
    (asm.mov32_reg(2, 3), "bc32000000000000", "(bc) w2 = w3"),
    (asm.movsx64(1, 2, 8), "bf21080000000000", "(bf) r1 = (s8)r2"),
    (asm.alu64_imm(Alu.ADD, 2, -8), "07020000f8ffffff", "(07) r2 += -8"),
    (asm.alu64_reg(Alu.SUB, 2, 3), "1f32000000000000", "(1f) r2 -= r3"),
    (asm.alu64_imm(Alu.MUL, 2, 3), "2702000003000000", "(27) r2 *= 3"),
    (asm.alu64_reg(Alu.DIV, 2, 3), "3f32000000000000", "(3f) r2 /= r3"),
    (asm.signed_reg(Alu.DIV, 2, 3), "3f32010000000000", "(3f) r2 s/= r3"),
    (asm.signed_imm(Alu.MOD, 2, 7, wide=False), "9402010007000000", "(94) w2 s%= 7"),
    (asm.alu64_imm(Alu.OR, 2, 1), "4702000001000000", "(47) r2 |= 1"),
    (asm.alu64_imm(Alu.AND, 1, 255), "57010000ff000000", "(57) r1 &= 255"),
    (asm.alu64_imm(Alu.LSH, 1, 32), "6701000020000000", "(67) r1 <<= 32"),
    (asm.alu64_imm(Alu.RSH, 1, 32), "7701000020000000", "(77) r1 >>= 32"),
    (asm.alu64_imm(Alu.ARSH, 1, 32), "c701000020000000", "(c7) r1 s>>= 32"),
    (asm.alu64_reg(Alu.XOR, 1, 1), "af11000000000000", "(af) r1 ^= r1"),
    (asm.alu32_reg(Alu.ADD, 1, 2), "0c21000000000000", "(0c) w1 += w2"),
    (asm.alu32_imm(Alu.MOD, 1, 10), "940100000a000000", "(94) w1 %= 10"),
    (asm.neg64(1), "8701000000000000", "(87) r1 = -r1"),
    (asm.neg32(1), "8401000000000000", "(84) w1 = -w1"),
    (asm.to_be(1, 16), "dc01000010000000", "(dc) r1 = be16 r1"),
    (asm.to_le(1, 64), "d401000040000000", "(d4) r1 = le64 r1"),
    (asm.bswap(1, 32), "d701000020000000", "(d7) r1 = bswap32 r1"),
    (asm.load(Size.DW, 1, 6, 16), "7961100000000000", "(79) r1 = *(u64 *)(r6 +16)"),
    (asm.load(Size.W, 0, 1), "6110000000000000", "(61) r0 = *(u32 *)(r1 +0)"),
    (asm.load(Size.H, 0, 1, -2), "6910feff00000000", "(69) r0 = *(u16 *)(r1 -2)"),
    (asm.load(Size.B, 0, 1, 3), "7110030000000000", "(71) r0 = *(u8 *)(r1 +3)"),
    (asm.load_signed(Size.H, 0, 1, 2), "8910020000000000", "(89) r0 = *(s16 *)(r1 +2)"),
    (asm.store_reg(Size.DW, 10, -8, 1), "7b1af8ff00000000", "(7b) *(u64 *)(r10 -8) = r1"),
    (asm.store_imm(Size.W, 10, -4, 7), "620afcff07000000", "(62) *(u32 *)(r10 -4) = 7"),
    (
        asm.atomic(Atomic.ADD, Size.DW, 0, 0, 1),
        "db10000000000000",
        "(db) lock *(u64 *)(r0 +0) += r1",
    ),
    (
        asm.atomic(Atomic.FETCH_ADD, Size.W, 0, 4, 1),
        "c310040001000000",
        "(c3) r1 = atomic_fetch_add((u32 *)(r0 +4), r1)",
    ),
    (
        asm.atomic(Atomic.CMPXCHG, Size.DW, 2, 0, 1),
        "db120000f1000000",
        "(db) r0 = atomic64_cmpxchg((u64 *)(r2 +0), r0, r1)",
    ),
    (
        asm.atomic(Atomic.XCHG, Size.DW, 2, 0, 1),
        "db120000e1000000",
        "(db) r1 = atomic64_xchg((u64 *)(r2 +0), r1)",
    ),
    (
        asm.load_imm64(3, 0x123456789ABCDEF0),
        "18030000f0debc9a0000000078563412",
        "(18) r3 = 0x123456789abcdef0",
    ),
    (asm.load_imm64(3, -1), "18030000ffffffff00000000ffffffff", "(18) r3 = 0xffffffffffffffff"),
    (asm.call("map_lookup_elem"), "8500000001000000", "(85) call bpf_map_lookup_elem#1"),
    (asm.call("bpf_ringbuf_output"), "8500000082000000", "(85) call bpf_ringbuf_output#130"),
    (asm.exit_(), "9500000000000000", "(95) exit"),
]


@pytest.mark.parametrize(("instruction", "encoded", "text"), TABLE, ids=str)
def test_encoding(instruction: Instruction, encoded: str, text: str) -> None:
    code = assemble([instruction])
    assert code.hex() == encoded
    assert disassemble(code)[0].split(": ", 1)[1] == text


JUMPS = [
    (Jump.JEQ, "15", "=="),
    (Jump.JGT, "25", ">"),
    (Jump.JGE, "35", ">="),
    (Jump.JSET, "45", "&"),
    (Jump.JNE, "55", "!="),
    (Jump.JSGT, "65", "s>"),
    (Jump.JSGE, "75", "s>="),
    (Jump.JLT, "a5", "<"),
    (Jump.JLE, "b5", "<="),
    (Jump.JSLT, "c5", "s<"),
    (Jump.JSLE, "d5", "s<="),
]


@pytest.mark.parametrize(("condition", "opcode", "sign"), JUMPS)
def test_conditions(condition: Jump, opcode: str, sign: str) -> None:
    code = assemble([asm.jump_imm(condition, 1, 5, "end"), asm.exit_().labelled("end")])
    assert code[:8].hex() == f"{opcode}01000005000000"
    assert disassemble(code)[0].endswith(f"if r1 {sign} 0x5 goto pc+0")
    narrow = assemble(
        [asm.jump_reg(condition, 1, 2, "end", wide=False), asm.exit_().labelled("end")]
    )
    assert narrow[0] == int(opcode, 16) - 5 + 0x0E
    assert disassemble(narrow)[0].endswith(f"if w1 {sign} w2 goto pc+0")


def test_labels_count_slots_not_instructions() -> None:
    code = assemble(
        [
            asm.load_map(1, "m").labelled("back"),
            asm.jump_imm(Jump.JEQ, 1, 0, "end"),
            asm.load_map_value(2, "m", 24),
            asm.jump("back"),
            asm.exit_().labelled("end"),
        ],
        {"m": 7},
    )
    assert disassemble(code) == [
        "   0: (18) r1 = map[fd:7]",
        "   2: (15) if r1 == 0x0 goto pc+3",
        "   3: (18) r2 = map[fd:7][0]+24",
        "   5: (05) goto pc-6",
        "   6: (95) exit",
    ]


def test_functions_and_kernel_functions() -> None:
    code = assemble(
        [
            asm.load_function(2, "callback"),
            asm.call_function("callback"),
            asm.call_kfunc("bpf_xdp_ct_lookup"),
            asm.exit_(),
            asm.mov64_imm(0, 0).labelled("callback"),
            asm.exit_(),
        ],
        kfunc_ids={"bpf_xdp_ct_lookup": 4711},
    )
    assert disassemble(code)[:3] == [
        "   0: (18) r2 = subprog[+4]",
        "   2: (85) call pc+2",
        "   3: (85) call kernel-function#4711",
    ]


def test_a_far_jump_becomes_a_long_one() -> None:
    filler = [asm.mov64_imm(0, 0)] * 40_000
    code = assemble([asm.jump("end"), *filler, asm.exit_().labelled("end")])
    assert disassemble(code)[0] == "   0: (06) gotol pc+40000"
    line = SourceLine("a.py", 3, "if x:", 4)
    with pytest.raises(CompileError, match=r"a.py:3:5: .*40000 slots away"):
        assemble(
            [
                asm.jump_imm(Jump.JEQ, 0, 0, "end").at(line),
                *filler,
                asm.exit_().labelled("end"),
            ]
        )


WRONG = [
    ([asm.jump("nowhere")], "label 'nowhere' is not defined"),
    ([asm.exit_().labelled("a"), asm.exit_().labelled("a")], "defined twice"),
    ([asm.load_map(1, "m")], "map 'm' is not given"),
    ([asm.mov64_imm(0, 1 << 31)], "does not fit into 32 bits"),
    ([asm.mov32_imm(0, 1 << 32)], "does not fit into 32 bits"),
    ([asm.load_imm64(0, 1 << 64)], "more than 64 bits"),
    ([asm.mov64_reg(16, 0)], "no such register"),
    ([asm.load(Size.W, 0, 1, 40_000)], "cannot be encoded"),
    ([asm.call_kfunc("bpf_nope")], "has no BTF id"),
]


@pytest.mark.parametrize(("instructions", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_what_cannot_be_encoded(instructions: list[Instruction], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        assemble(instructions)


def test_helpers() -> None:
    assert helpers.HELPERS["map_lookup_elem"] == 1
    assert helpers.HELPERS["get_current_cgroup_id"] == 80
    assert helpers.HELPERS["cgrp_storage_delete"] == 211 == len(helpers.HELPERS)
    with pytest.raises(CompileError, match="no BPF helper 'nope'"):
        asm.call("nope")


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(code: bytes) -> None:
    try:
        lines = disassemble(code)
        items = decode(code)
    except CompileError:
        return
    assert len(lines) == len(items)
    again = assemble(items)
    # The second half of a 64-bit load has fields nobody reads; all else comes back as it was.
    assert decode(again) == items
    assert len(again) == len(code)


@kernel.root
@kernel.bpftool
def test_text_is_as_bpftool_shows_it() -> None:
    instructions = (
        *kernel.counting()[:-2],
        asm.mov64_imm(3, 40).labelled("out"),
        asm.alu64_imm(Alu.LSH, 3, 3),
        asm.alu32_imm(Alu.XOR, 3, 5),
        asm.to_be(3, 16),
        asm.neg64(3),
        asm.store_reg(Size.H, 10, -16, 3),
        asm.load(Size.H, 4, 10, -16),
        asm.jump_reg(Jump.JSGT, 3, 4, "end"),
        asm.jump_imm(Jump.JLT, 3, 9, "end", wide=False),
        asm.load_imm64(5, 0x1122334455667788),
        asm.store_imm(Size.DW, 10, -24, 3),
        asm.atomic(Atomic.FETCH_ADD, Size.DW, 10, -24, 3),
        asm.atomic(Atomic.OR, Size.DW, 10, -24, 3),
        asm.mov64_imm(0, 0).labelled("end"),
        asm.exit_(),
    )
    with maps.create(maps.MapSpec("counts", maps.MapType.HASH, 4, 8, 1)) as counts:
        spec = ProgramSpec(kernel.unique(), ProgramType.SOCKET_FILTER, instructions)
        with programs.load(spec, {"counts": counts}) as program:
            shown = subprocess.run(
                ["bpftool", "-j", "prog", "dump", "xlated", "id", str(program.id)],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            ours = [line.split(": ", 1)[1] for line in disassemble(program.translated())]
    theirs = [row["disasm"] for row in json.loads(shown)]
    # Calls are rewritten to addresses, and the map is named by id there: the rest is equal.
    assert len(ours) == len(theirs)
    same = [
        (mine, other)
        for mine, other in zip(ours, theirs, strict=True)
        if "call" not in mine and "map[" not in mine and "(07) r0 +=" not in mine
    ]
    assert len(same) >= 18
    assert [mine for mine, _ in same] == [other for _, other in same]
