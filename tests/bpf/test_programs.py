"""Loading, refusals that show the user's line, and running without attaching."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.bpf import asm, maps, pins, programs, verifier
from bazaar.bpf.asm import Instruction, SourceLine
from bazaar.bpf.maps import MapSpec, MapType
from bazaar.bpf.opcodes import Alu, Jump, Size
from bazaar.bpf.programs import ProgramSpec, ProgramType
from bazaar.errors import BtfError, KernelError, VerifierError
from tests.bpf import kernel

pytestmark = kernel.root


def line(number: int, text: str) -> SourceLine:
    return SourceLine("guard.py", number, text, 5)


def spec(*instructions: Instruction, kind: ProgramType = ProgramType.XDP) -> ProgramSpec:
    return ProgramSpec(kernel.unique(), kind, instructions)


def test_load_run_and_information() -> None:
    with kernel.Counter(ProgramType.XDP, result=2) as counter:
        result = counter.program.run(b"x" * 64, repeat=100)
        assert result.value == 2
        assert result.data == b"x" * 64
        assert 0 < result.duration_ns < 100_000
        assert counter.count == 100
        info = counter.program.info()
        assert info.name == counter.program.name
        assert info.map_ids == (counter.map.id,)
        assert info.verified_instructions == len(kernel.counting())
        shown = json.loads(
            subprocess.run(
                ["bpftool", "-j", "prog", "show", "id", str(info.id)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        assert (shown["tag"], shown["type"]) == (info.tag, "xdp")


def test_a_program_changes_packet_and_context() -> None:
    code = (
        asm.load(Size.W, 2, 1, 0),
        asm.load(Size.W, 3, 1, 4),
        asm.mov64_reg(4, 2),
        asm.alu64_imm(Alu.ADD, 4, 4),
        asm.jump_reg(Jump.JGT, 4, 3, "short"),
        asm.store_imm(Size.W, 2, 0, 0x01020304),
        asm.mov64_imm(0, 3),
        asm.exit_(),
        asm.mov64_imm(0, 1).labelled("short"),
        asm.exit_(),
    )
    with programs.load(spec(*code)) as program:
        result = program.run(bytes(20), struct.pack("<6I", 0, 20, 0, 1, 0, 0))
        assert (result.value, result.data) == (3, b"\4\3\2\1" + bytes(16))
        assert struct.unpack("<6I", result.context)[3] == 1


REFUSED = [
    (
        [asm.load(Size.DW, 0, 1, 999).at(line(3, "return args.nope")), asm.exit_()],
        3,
        "no such field in its context (offset 999, 8 bytes)",
    ),
    (
        [
            asm.store_imm(Size.W, 10, -4, 0).at(line(1, "def guard(packet):")),
            asm.mov64_reg(2, 10),
            asm.alu64_imm(Alu.ADD, 2, -4),
            asm.load_map(1, "counts"),
            asm.call("map_lookup_elem").at(line(2, "    count = counts[0]")),
            asm.load(Size.DW, 0, 0).at(line(3, "    return count.value")),
            asm.exit_(),
        ],
        3,
        "compare it with 0 before using it",
    ),
    ([asm.exit_().at(line(7, "return"))], 7, "may end without having set its return value"),
    (
        [asm.mov64_imm(0, 0).at(line(2, "while True:")).labelled("a"), asm.jump("a")],
        2,
        "cannot see that this loop ends",
    ),
    (
        [asm.mov64_imm(1, 0).at(line(2, "p = 0")), asm.load(Size.B, 0, 1).at(line(3, "p[0]"))],
        3,
        "",
    ),
    (
        [
            asm.mov64_imm(1, 0).at(line(2, "p = 0")),
            asm.load(Size.B, 0, 1).at(line(3, "p[0]")),
            asm.exit_(),
        ],
        3,
        "a number is used as an address",
    ),
    (
        [
            asm.load(Size.W, 2, 1).at(line(2, "data = packet.data")),
            asm.load(Size.B, 0, 2).at(line(4, "return data[0]")),
            asm.exit_(),
        ],
        4,
        "compare with data_end first",
    ),
    (
        [
            asm.mov64_imm(0, 0).at(line(2, "big = 0")),
            asm.store_reg(Size.DW, 10, -520, 0).at(line(9, "buffer = bytes(520)")),
            asm.exit_(),
        ],
        9,
        "more than the 512 bytes of stack",
    ),
    (
        [asm.mov64_reg(0, 7).at(line(5, "return x")), asm.exit_()],
        5,
        "register r7 is read before anything was written to it",
    ),
    (
        [asm.call(2047).at(line(4, "mystery()")), asm.exit_()],
        4,
        "has no helper",
    ),
    (
        [
            asm.mov64_imm(0, 0).at(line(1, "a")),
            asm.jump("x"),
            asm.mov64_imm(0, 1).at(line(2, "dead")),
            asm.exit_().at(line(3, "b")).labelled("x"),
        ],
        2,
        "can never be reached",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("instructions", "number", "reason"), REFUSED)
def test_a_refusal_shows_the_users_line(
    instructions: list[Instruction], number: int, reason: str
) -> None:
    with (
        maps.create(MapSpec("counts", MapType.HASH, 4, 8, 1)) as counts,
        pytest.raises(VerifierError) as refused,
    ):
        programs.load(spec(*instructions), {"counts": counts}).close()
    error = refused.value
    if reason:
        assert (error.file, error.line) == ("guard.py", number)
        assert f"guard.py:{number}" in error.message
        shown = next(i.line for i in instructions if i.line and i.line.line == number)
        assert shown is not None
        assert shown.text.strip() in error.message
    assert reason in error.message
    assert error.log.strip()


def test_a_log_longer_than_the_first_buffer_is_kept_whole() -> None:
    # 3000 instructions walked one by one make some 200 kB of log; the fault is the last.
    body = [asm.mov64_imm(number % 5 + 1, number) for number in range(3000)]
    with pytest.raises(VerifierError) as refused:
        programs.load(spec(*body, asm.exit_().at(line(42, "return"))))
    assert len(refused.value.log) > programs._LOG_START
    assert refused.value.line == 42
    assert "R0 !read_ok" in refused.value.log


def test_a_refusal_that_comes_before_verifying() -> None:
    with pytest.raises(KernelError) as refused:
        programs.load(spec(*kernel.counting()[-2:], kind=ProgramType.STRUCT_OPS))
    assert "struct_ops" in refused.value.message


def test_descriptors_are_closed_when_loading_fails() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(VerifierError):
            programs.load(spec(asm.exit_().at(line(1, "return"))))
    assert len(os.listdir("/proc/self/fd")) == before


@kernel.bpftool
def test_bpftool_shows_the_source_lines_and_functions() -> None:
    code = (
        asm.mov64_imm(0, 2).at(line(10, "verdict = PASS")),
        asm.call_function("helper"),
        asm.mov64_imm(0, 2).at(line(12, "return verdict")),
        asm.exit_(),
        asm.mov64_imm(0, 7).labelled("helper").at(line(20, "def helper():")),
        asm.exit_(),
    )
    with programs.load(spec(*code)) as program:
        command = ["bpftool", "prog", "dump", "xlated", "id", str(program.id), "linum"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "; verdict = PASS [file:guard.py line_num:10 line_col:5]" in shown
    assert "; def helper(): [file:guard.py line_num:20 line_col:5]" in shown
    assert "int helper" in shown


def test_pinned_programs_survive() -> None:
    path = f"{pins.root()}/{kernel.unique()}"
    with kernel.Counter(ProgramType.XDP) as counter:
        counter.program.pin(path)
        number = counter.program.id
    try:
        with programs.open_pinned(path) as again:
            assert (again.id, again.type) == (number, ProgramType.XDP)
            assert again.run(b"x" * 64).value == 0
    finally:
        pins.unpin(path)
    with pytest.raises(KernelError) as gone:
        programs.open_id(number).close()
    assert gone.value.errno == errno.ENOENT


def test_statistics_count_runs() -> None:
    with kernel.Counter(ProgramType.RAW_TRACEPOINT) as counter:
        with programs.statistics():
            from bazaar.bpf import links

            with links.raw_tracepoint(counter.program, "sys_enter"):
                for _ in range(500):
                    os.getppid()
        info = counter.program.info()
        assert info.runs >= 500
        assert 1 <= info.run_ns / info.runs < 100_000


def test_live_frames_reach_the_other_end() -> None:
    from bazaar.bpf import links

    with kernel.namespace_with_veth() as (_, near):
        import socket

        far = socket.if_nametoindex("vb")
        redirect = (
            asm.mov64_imm(1, near),
            asm.mov64_imm(2, 0),
            asm.call("redirect"),
            asm.exit_(),
        )
        with (
            programs.load(spec(*redirect)) as sender,
            kernel.Counter(ProgramType.XDP, result=1) as counter,
            links.xdp(counter.program, far),
        ):
            frame = b"\xff" * 6 + b"\2" * 6 + b"\x88\xb5" + bytes(50)
            sender.run_live(frame, near, 1000)
            for _ in range(100):
                if counter.count >= 1000:
                    break
                os.sched_yield()
            # The kernel's own neighbour discovery may add a few.
            assert 1000 <= counter.count < 1020
            before = counter.count
            sender.run_live(frame, near, 1)
            time.sleep(0.05)
            assert 1 <= counter.count - before < 20


PHRASES = [
    ("R2 type=ctx expected=fp, pkt", "the value passed in r2 is a ctx where a fp, pkt is wanted"),
    (
        "invalid access to map value, value_size=8 off=8 size=4",
        "4 bytes at offset 8 lie outside the map's value of 8 bytes",
    ),
    ("program of this type cannot use helper bpf_redirect#23", "may not call bpf_redirect#23"),
    ("unknown func bpf_redirect#23", "may not call bpf_redirect#23"),
    ("cannot call GPL-restricted function from non-GPL compatible program", "GPL"),
    ("Unreleased reference id=2 alloc_insn=7", "not given back on every path"),
    ("R1 unbounded memory access, make sure to bounds check any such access", "compare or mask"),
    ("BPF program is too large. Processed 1000001 insn", "too many paths"),
    ("At program exit the register R0 has smin=5 should have been in [0, 1]", "[0, 1]"),
    ("something nobody has seen", ""),
]


@pytest.mark.parametrize(("said", "sentence"), PHRASES)
def test_phrases(said: str, sentence: str) -> None:
    assert sentence in verifier.plain(said)
    assert bool(verifier.plain(said)) == bool(sentence)


def test_kernel_functions_are_called_by_name() -> None:
    code = (
        asm.call_kfunc("bpf_rcu_read_lock"),
        asm.call_kfunc("bpf_rcu_read_unlock"),
        asm.mov64_imm(0, 2),
        asm.exit_(),
    )
    with programs.load(spec(*code)) as program:
        assert program.run(b"x" * 64).value == 2
    with pytest.raises(BtfError, match="no func 'bpf_nope'"):
        programs.load(spec(asm.call_kfunc("bpf_nope"), asm.exit_()))


def test_callbacks_and_functions_of_the_program_run() -> None:
    code = (
        asm.store_imm(Size.DW, 10, -8, 0).at(line(1, "total = 0")),
        asm.mov64_imm(1, 7),
        asm.load_function(2, "body"),
        asm.mov64_reg(3, 10),
        asm.alu64_imm(Alu.ADD, 3, -8),
        asm.mov64_imm(4, 0),
        asm.call("loop").at(line(2, "for number in range(7):")),
        asm.load(Size.DW, 0, 10, -8),
        asm.call_function("double"),
        asm.exit_(),
        # body(number, total): *total += number
        asm.load(Size.DW, 3, 2).labelled("body").at(line(3, "    total += number")),
        asm.alu64_reg(Alu.ADD, 3, 1),
        asm.store_reg(Size.DW, 2, 0, 3),
        asm.mov64_imm(0, 0),
        asm.exit_(),
        asm.mov64_imm(0, 42).labelled("double"),
        asm.exit_(),
    )
    with programs.load(spec(*code)) as program:
        assert program.run(b"x" * 64).value == 42
        assert program.info().verified_instructions >= len(code)
    # Without the second function, the sum itself.
    direct = tuple(item for item in code if item.target != "double")[:-2]
    with programs.load(spec(*direct, kind=ProgramType.SCHED_CLS)) as program:
        assert program.run(b"x" * 64).value == sum(range(7))


def test_tail_calls() -> None:
    jump = (
        asm.load_map(2, "next"),
        asm.mov64_imm(3, 1),
        asm.call("tail_call"),
        asm.mov64_imm(0, 1),
        asm.exit_(),
    )
    with (
        maps.create(MapSpec("next", MapType.PROG_ARRAY, 4, 4, 2)) as table,
        programs.load(spec(*jump), {"next": table}) as first,
        programs.load(spec(asm.mov64_imm(0, 3), asm.exit_())) as second,
    ):
        assert first.run(b"x" * 64).value == 1
        table.update_fd(struct.pack("<I", 1), second)
        assert first.run(b"x" * 64).value == 3


@given(st.text(max_size=400), st.integers(0, 5))
def test_any_log_is_read(log: str, count: int) -> None:
    code = [asm.mov64_imm(0, 0).at(line(n + 1, "x")) for n in range(count)]
    refusal = verifier.explain(log, code)
    assert refusal.slot >= -1
    verifier.explain(f"{count}: (b7) r0 = 0\nR0 {log}", code)


def test_a_limit_told_within_an_instructions_line_is_found() -> None:
    from bazaar.bpf import verifier

    log = (
        "463: (1f) r6 -= r0                    ; R0=scalar() R6=scalar()\n"
        "464: (2d) if r1 > r6 goto pc+2 BPF program is too large. Processed 1000001 insn\n"
        "processed 1000001 insns (limit 1000000) max_states_per_insn 23 total_states 80746\n"
    )
    refusal = verifier.explain(log, ())
    assert refusal.slot == 464
    assert refusal.said == "BPF program is too large. Processed 1000001 insn"
    assert refusal.reason
