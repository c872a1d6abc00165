"""Random text gives a tree or a TraceError; random programs that make sense load."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bazaar import trace
from bazaar.bpf import maps, programs
from bazaar.errors import TraceError
from bazaar.trace import events, formats, parser, tree
from tests.trace.kernel import needs_root
from tests.trace.strategies import programs as random_programs

PIECES = st.sampled_from(
    "BEGIN END tracepoint:syscalls:sys_enter_write interval:s:1 { } ( ) [ ] / // /* */ ; , . -> @ "  # noqa: SIM905
    '@x $x $1 $# " "a" 1 0x 99999999999999999999999 1e999 08 + - ++ -- = == ? : if else unroll '
    "return hist( count() comm args.count (uint8) ! ~ && || << >>= \n \\ # é \0".split(" ")
)
QUICK = settings(
    max_examples=int(os.environ.get("BAZAAR_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@QUICK
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=30).map(" ".join)))
def test_any_text_is_parsed_or_refused_in_its_place(text: str):
    try:
        found = parser.parse(text)
    except TraceError as error:
        lines = text.splitlines() or [""]
        assert 1 <= error.line <= len(lines) + 1
        assert 1 <= error.column <= max(map(len, [*lines, ""])) + 2
        assert str(error)
    else:
        assert parser.parse(tree.write(found)) == found


@needs_root
@QUICK
@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_any_body_is_compiled_or_refused(text: str):
    try:
        trace.compile(f"BEGIN {{ $x = 1; @x = 1; {text} }}")
    except TraceError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000,
        "BEGIN { @ = " + "-" * 5000,
        "BEGIN " + "{ if (1) " * 500,
        "BEGIN { @ = 1" + " + 1" * 5000 + "; }",
        "BEGIN { @ = " + "1 ? " * 900,
        "BEGIN { @ = " + "(1 + " * 50 + "1" + ")" * 50 + "; }",
    ],
)
def test_depth_is_bounded(text: str):
    try:
        parser.parse(text)
    except TraceError as error:
        assert error.message


@needs_root
@QUICK
@given(random_programs())
def test_programs_that_make_sense_load(text: str):
    try:
        compiled = trace.compile(text, parameters=["word"])
    except TraceError as error:
        # A signed literal and a string do not meet; all else is a fault of ours.
        pytest.fail(f"{text}\n{error}")
    made = {name: maps.create(spec) for name, spec in compiled.map_specs}
    try:
        for plan in compiled.plans:
            programs.load(plan.spec, made).close()
    finally:
        for item in made.values():
            item.close()


@needs_root
@QUICK
@given(random_programs())
def test_written_programs_are_the_same(text: str):
    found = parser.parse(text)
    assert parser.parse(tree.write(found)) == found


@given(st.text(max_size=200))
def test_any_format_file_is_read(text: str):
    events.parse_format(text, user=True)
    events.parse_format(f"\tfield:{text};\toffset:8;\tsize:8;\tsigned:1;", user=False)


@given(st.text(max_size=40), st.integers(-(1 << 63), (1 << 64) - 1))
def test_any_format_string_is_filled_or_refused(text: str, number: int):
    try:
        pieces = formats.parse(text)
    except ValueError:
        return
    values = [
        "text" if piece.kind == "s" else number
        for piece in pieces
        if isinstance(piece, formats.Specifier)
    ]
    formats.fill(pieces, values)
