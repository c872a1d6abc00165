"""What cannot be compiled is refused at its place in the Python text."""

from __future__ import annotations

import importlib.util
import re

import pytest

from bazaar.errors import CompileError

HEAD = """from bazaar.bpf.python import *
from dataclasses import dataclass
class State(Struct):
    hits: u64
    mac: bytes6
states = HashMap("states", key=u32, value=State, max_entries=8)
counts = HashMap("counts", key=u32, value=u64, max_entries=8)
def plain(x: int) -> int:
    return x
@function
def again(x: int) -> int:
    return again(x)
@function
def sometimes(x: int) -> int:
    if x > 1:
        return 1
@xdp
def program(context: XdpContext) -> int:
    a = packet_length(context)
"""
FIRST = HEAD.count("\n") + 1


def compile_text(tmp_path, body: str):
    path = tmp_path / "user.py"
    lines = [f"    {line}" for line in body.split("\n")]
    path.write_text(HEAD + "\n".join(lines) + "\n")
    spec = importlib.util.spec_from_file_location("user", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.program.instructions


@pytest.mark.parametrize(
    ("body", "line", "column", "message"),
    [
        ("while a:\n    pass", 1, 5, "'while' has no bound"),
        ("b = a / 2\nreturn 1", 1, 9, "use '//'"),
        ("b = 'text'\nreturn b + 1", 2, 12, "'text' is no integer"),
        ("return undefined", 1, 12, "'undefined' is not defined"),
        ("if a:\n    b = 1\nreturn b", 3, 12, "'b' may not have a value yet"),
        ("pass", None, None, "may end without returning"),
        ("return plain(a)", 1, 12, "decorate your own functions with @function"),
        ("return again(a)", None, None, "calls itself"),
        ("return sometimes(a)", 1, 12, "does not return a value on every path"),
        ("return context.wrong", 1, 12, "XdpContext has no field 'wrong'"),
        ("return counts.lookup(a, 2)", 1, 12, "1 to 1 arguments"),
        ("return states[a]", 1, 12, "use lookup()"),
        ("s = State(wrong=1)\nreturn 0", 1, 9, "has no field 'wrong'"),
        ("return helper('no_such_helper')", 1, 12, "no BPF helper named 'no_such_helper'"),
        ("for x in counts:\n    pass\nreturn 0", 1, 14, "only 'for name in range"),
        ("for x in range(0, 9, 0):\n    pass\nreturn 0", 1, 14, "the step must be"),
        ("return 1 if a < -1 else 0", 1, 17, "an unsigned integer is never negative"),
        ("x = None\nreturn 0", 1, 5, "cannot be told from None"),
        ("return a ** 2", 1, 12, "operator pow cannot be compiled"),
        ("return 1 // 0", 1, 12, "by zero"),
        ("try:\n    return 1\nexcept OSError:\n    return 2", 1, 5, "'try' cannot be compiled"),
        ("return 1 if a is a else 0", 1, 17, "'is' compares with None only"),
        ("x = packet(context, Ethernet, 40000)\nreturn 0", 1, 35, "offset 40000"),
        ("x = packet(context, int3)\nreturn 0", 1, 25, "no type of a compiled program"),
        ("return [1][0]", 1, 12, "list cannot be compiled"),
        ("s = State(mac=b'12345')\nreturn 0", 1, 19, "6 bytes are wanted, not 5"),
        ("s = State()\nreturn s.mac[6]", 2, 12, "index 6, but there are 6 elements"),
        ("del a\nreturn 0", 1, 9, "only a map's keys"),
        ("return State()", 1, 5, "a program returns an integer"),
    ],
)
def test_refusals(tmp_path, body, line, column, message) -> None:
    with pytest.raises(CompileError, match=re.escape(message)) as caught:
        compile_text(tmp_path, body)
    if line is not None:
        assert f"user.py:{FIRST + line - 1}:{column}:" in str(caught.value)


def test_a_console_function_has_no_source() -> None:
    from bazaar.bpf.python import xdp

    names: dict = {}
    exec("def f(context):\n    return 0", names)
    with pytest.raises(CompileError, match="source"):
        _ = xdp(names["f"]).instructions
