"""Reads the verifier's log: which instruction it stopped at, and why in a sentence.

Loaded only when a program was refused. The kernel's phrases change between releases, so each
row of the table is a loose pattern, and what no row knows is shown in the kernel's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bazaar.bpf.asm import Instruction, SourceLine, positions
from bazaar.model.record import record

_INSTRUCTION = re.compile(r"^(\d+): \(([0-9a-f]{2})\) ?(.*)")
_STATE = re.compile(
    r"^(\d+: )?((old|cur) state:|R\d+(_\w+)?=|frame\d+:|fp-?\d|last_idx|regs=|parent |mark_precise)"
)
_NOISE = re.compile(
    r"^(processed \d+ insns|verification time|stack depth|func#\d+|Live regs|max_states|;"
    r"|from \d+ to|\d+: R|Func#\d+|Validating |Global function|arg#\d+ )"
)
_NAMED = re.compile(r"\binsn (\d+)")

# (pattern in the kernel's words, what it means in ours)
_REASONS: tuple[tuple[str, str], ...] = (
    (
        r"invalid mem access '\w*(map_value_or_null|_or_null)",
        "the pointer may be null here: compare it with 0 before using it",
    ),
    (
        r"invalid mem access '(scalar|inv)'",
        "a number is used as an address: read it with probe_read_kernel or probe_read_user",
    ),
    (
        r"invalid access to packet|outside of the packet",
        "the packet may end before these bytes: compare with data_end first",
    ),
    (
        r"invalid bpf_context access off=(-?\d+) size=(\d+)",
        r"this type of program has no such field in its context (offset \1, \2 bytes)",
    ),
    (r"R0 !read_ok", "the program may end without having set its return value"),
    (r"R(\d+) !read_ok", r"register r\1 is read before anything was written to it"),
    (r"back-edge from insn|infinite loop detected", "the verifier cannot see that this loop ends"),
    (
        r"BPF program is too large|too many instructions|jumps is too complex",
        "there are too many paths through the program: make loops shorter or branches fewer",
    ),
    (r"unreachable insn", "this instruction can never be reached"),
    (
        r"last insn is not an exit or jmp|jump out of range",
        "the program runs or jumps beyond its last instruction",
    ),
    (
        r"invalid (indirect )?(read|access).*stack|invalid (indirect )?read from stack",
        "bytes of the stack are read that nothing was written to, or that lie outside of it",
    ),
    (
        r"invalid (write to stack|stack)|combined stack size|stack.*too large|stack depth",
        "more than the 512 bytes of stack are used",
    ),
    (
        r"invalid access to map value, value_size=(\d+) off=(-?\d+) size=(\d+)",
        r"\3 bytes at offset \2 lie outside the map's value of \1 bytes",
    ),
    (
        r"unbounded memory access|(min|max) value is (negative|outside)|unbounded min value",
        "the index or length is not known to stay within bounds: compare or mask it first",
    ),
    (
        r"cannot call GPL.restricted",
        'this function may only be called by programs with a GPL-compatible license ("GPL")',
    ),
    (
        r"program of this type cannot use helper (\S+)|unknown func (\S+)",
        r"this type of program may not call \1\2",
    ),
    (r"invalid func (\S+)", r"this kernel has no helper \1"),
    (
        r"calling kernel function (\S+) is not allowed",
        r"this type of program may not call the kernel function \1",
    ),
    (
        r"At (?:subprogram|program) exit the register R0 .*should have been in (.*)",
        r"this type of program must return a value in \1",
    ),
    (
        r"Unreleased reference|reference has not been (acquired|released)",
        "what was acquired (a ring buffer record, a socket …) is not given back on every path",
    ),
    (r"leaks addr", "a kernel address would leak into a map or the return value"),
    (r"misaligned", "the access is not aligned to its size"),
    (
        r"R(\d+) type=(\S+) expected=(.+)",
        r"the value passed in r\1 is a \2 where a \3 is wanted",
    ),
    (
        r"same insn cannot be used with different pointers",
        "one instruction reads through pointers of different kinds, depending on the path",
    ),
    (
        r"pointer arithmetic .* prohibited|math between .* not allowed|operator .* on pointer",
        "this arithmetic is not allowed on a pointer",
    ),
    (
        r"cannot write into|only read is supported|write into map forbidden",
        "this memory is read-only",
    ),
    (r"not pointing to valid bpf_map", "a map of the program is closed already"),
    (r"unknown opcode|invalid BPF_\w+|uses reserved fields", "this kernel has no such instruction"),
    (
        r"no such BTF|does not have BTF|type .* is not a|Invalid kernel function",
        "the kernel's BTF names no such type",
    ),
)


# The kernel gives up in the middle of an instruction's line.
_LIMIT = re.compile(r"BPF program is too large.*|The sequence of \d+ jumps is too complex.*")


@record
class Refusal:
    """Why a program was refused: the slot of the instruction (-1: none is named), the source
    line it came from, the kernel's telling line, and a plain sentence ("" when none is known)."""

    slot: int
    line: SourceLine | None
    said: str
    reason: str


def explain(log: str, instructions: Sequence[Instruction]) -> Refusal:
    """The telling part of a log."""
    slot, said = _telling(log)
    return Refusal(slot, source_line(slot, instructions), said, plain(said))


def plain(said: str) -> str:
    """The kernel's phrase as a sentence of ours; "" for one we do not know."""
    for pattern, sentence in _REASONS:
        found = re.search(pattern, said)
        if found:
            # A group that took no part in the match reads as "".
            return found.expand(sentence)
    return ""


def source_line(slot: int, instructions: Sequence[Instruction]) -> SourceLine | None:
    """The line the instruction at a slot was made from, or the last one before it that has any."""
    line = None
    for start, item in zip(positions(instructions)[0], instructions, strict=True):
        if start > slot >= 0:
            break
        line = item.line or line
        if slot < 0 and line:
            break
    return line if slot >= 0 else None


def _telling(log: str) -> tuple[int, str]:
    """The last instruction walked, and the last line that is neither walk nor statistics."""
    slot, said, said_after = -1, "", -1
    for text in log.replace("\0", "").splitlines():
        stripped = text.strip()
        walked = _INSTRUCTION.match(stripped)
        if walked:
            slot = int(walked[1])
            limit = _LIMIT.search(stripped)
            if limit:
                said, said_after = limit[0], slot
        elif stripped and not _STATE.match(stripped) and not _NOISE.match(stripped):
            said, said_after = stripped, slot
    named = _NAMED.search(said)
    if named:
        return int(named[1]), said
    return said_after, said
