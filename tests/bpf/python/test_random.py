"""Random functions: compiled and run by the kernel they give what Python gives.

Python runs the same text with integers that wrap at 64 bits (`Word`).
"""

from __future__ import annotations

import importlib.util
import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from bazaar.errors import VerifierError

MASK = (1 << 64) - 1
HEADER = """
from bazaar.bpf.python import *
class Numbers(Struct):
    a: u64
    b: u64
    c: i64
    d: i64
    e: u32be
    f: i32
    g: u8
    h: i8
    i: u16be
@xdp
def program(context: XdpContext) -> int:
    n = packet(context, Numbers)
    if n is None:
        return XDP_PASS
    a = n.a
    b = n.b
    c = n.c
    d = n.d
    e = n.e + 0
    f: i32 = n.f
    g: u8 = n.g
    h: i8 = n.h
"""
LAYOUT = struct.Struct("<QQqq")
TAIL = struct.Struct("<iBbH4x")
COUNT = itertools.count()


class Word:
    """A 64-bit integer that is signed or not and does arithmetic as documented."""

    def __init__(self, value: int, signed: bool | None) -> None:
        value &= MASK
        self.signed = signed
        self.value = value - (1 << 64) if signed and value >> 63 else value

    def with_(self, other, compute, *, reverse=False, shift=False):
        kinds = {self.signed, other.signed if isinstance(other, Word) else None}
        signed = True in kinds and False not in kinds
        left, right = self, other
        if reverse:
            left, right = right, left
        if shift:
            signed = isinstance(left, Word) and left.signed is True
        return Word(compute(number(left, signed), number(right, signed)), signed)

    def compare(self, other, compute) -> bool:
        kinds = {self.signed, other.signed if isinstance(other, Word) else None}
        signed = True in kinds and False not in kinds
        return compute(number(self, signed), number(other, signed))

    def __bool__(self) -> bool:
        return self.value != 0

    def __neg__(self):
        return Word(-self.value, self.signed is True)

    def __invert__(self):
        return Word(~self.value, self.signed is True)

    def __index__(self) -> int:
        return self.value

    __hash__ = None


def number(value, signed: bool) -> int:
    value = (value.value if isinstance(value, Word) else int(value)) & MASK
    return value - (1 << 64) if signed and value >> 63 else value


def divide(left: int, right: int) -> int:
    if right == 0:
        return 0
    quotient = abs(left) // abs(right)
    return -quotient if (left < 0) != (right < 0) else quotient


def modulo(left: int, right: int) -> int:
    return left - right * divide(left, right) if right else left


def install() -> None:
    plain = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "xor": lambda a, b: a ^ b,
        "floordiv": divide,
        "mod": modulo,
        "lshift": lambda a, b: a << (b & 63),
        "rshift": lambda a, b: a >> (b & 63),
    }
    for name, compute in plain.items():
        shift = name.endswith("shift")

        def forward(self, other, compute=compute, shift=shift):
            return self.with_(other, compute, shift=shift)

        def backward(self, other, compute=compute, shift=shift):
            return self.with_(other, compute, reverse=True, shift=shift)

        setattr(Word, f"__{name}__", forward)
        setattr(Word, f"__r{name}__", backward)
    for name, compute in {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
    }.items():
        setattr(
            Word, f"__{name}__", lambda self, other, compute=compute: self.compare(other, compute)
        )


install()


def cut(size: int, signed: bool):
    def apply(value) -> Word:
        bits = number(value, False) & ((1 << 8 * size) - 1)
        if signed and bits >> (8 * size - 1):
            bits -= 1 << 8 * size
        return Word(bits, signed if signed or size == 8 else None)

    return apply


TYPES = {
    f"{'i' if signed else 'u'}{8 * size}": cut(size, signed)
    for size in (1, 2, 4, 8)
    for signed in (True, False)
}
KINDS = {
    "a": "u64",
    "b": "u64",
    "c": "i64",
    "d": "i64",
    "e": "u64",
    "f": "i32",
    "g": "u8",
    "h": "i8",
}
constants = st.sampled_from([0, 1, 2, 3, 8, 10, 63, 255, 256, 4095, 65536, 1 << 31, 1 << 40]) | (
    st.integers(0, 1 << 63)
)


@st.composite
def expressions(draw, names, depth: int = 3) -> str:
    kind = draw(st.integers(0, 9)) if depth else draw(st.integers(0, 1))
    deeper = expressions(names, depth - 1)
    if kind == 0:
        return str(draw(constants))
    if kind <= 3:
        return draw(st.sampled_from(names))
    if kind <= 6:
        op = draw(st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"]))
        return f"({draw(st.sampled_from(names))} {op} {draw(deeper)})"
    if kind == 7:
        return f"{draw(st.sampled_from('-~'))}{draw(st.sampled_from(names))}"
    if kind == 8:
        return f"truncate({draw(deeper)}, {draw(st.sampled_from(sorted(TYPES)))})"
    if draw(st.booleans()):
        test = draw(conditions(names, depth - 1))
        return f"truncate({draw(deeper)} if {test} else {draw(deeper)}, u64)"
    return f"truncate({draw(st.sampled_from(['min', 'max']))}({draw(deeper)}, a), u64)"


@st.composite
def conditions(draw, names, depth: int = 2) -> str:
    kind = draw(st.integers(0, 6)) if depth else 0
    value = expressions(names, max(0, depth - 1))
    deeper = conditions(names, depth - 1)
    name = draw(st.sampled_from(names))
    op = draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    if kind <= 2:
        return f"{name} {op} {draw(value)}"
    if kind == 3:
        return f"not ({draw(deeper)})"
    if kind == 4:
        return f"({draw(deeper)} {draw(st.sampled_from(['and', 'or']))} {draw(deeper)})"
    if kind == 5:
        return f"({draw(value)} < {name} <= {draw(value)})"
    return f"{name} in ({draw(constants)}, {draw(constants)})"


@st.composite
def statements(draw, names, indent: str, depth: int = 3, loops: int = 0) -> list[str]:
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 7)) if depth else draw(st.integers(0, 3))
        name = draw(st.sampled_from(sorted(KINDS)))
        inner = statements(names, indent + "    ", depth - 1, loops)
        if kind <= 2:
            value = draw(expressions(names))
            lines.append(f"{indent}{name} = truncate({value}, {KINDS[name]})")
        elif kind == 3:
            name = draw(st.sampled_from("ab"))
            op = draw(st.sampled_from(["+", "-", "*", "^", "|", "&"]))
            lines.append(f"{indent}{name} {op}= truncate({draw(expressions(names))}, u64)")
        elif kind <= 5 or loops:
            lines += [f"{indent}if {draw(conditions(names))}:", *draw(inner)]
            if draw(st.booleans()):
                lines += [f"{indent}elif {draw(conditions(names))}:", *draw(inner)]
            if draw(st.booleans()):
                lines += [f"{indent}else:", *draw(inner)]
        else:
            count, step = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            lines.append(
                f"{indent}for i in range({count}, {count + draw(st.integers(0, 3))}, {step}):"
            )
            lines += draw(statements([*names, "i"], indent + "    ", depth - 1, loops + 1))
            leave = draw(st.sampled_from(["break", "continue"]))
            lines += [f"{indent}    if {draw(conditions(names))}:", f"{indent}        {leave}"]
            lines.append(f"{indent}    b += i")
    return lines


END = [
    "    n.a = a",
    "    n.b = b",
    "    n.c = c",
    "    n.d = d",
    "    n.e = e",
    "    return XDP_DROP",
]


def by_python(lines: list[str], data: bytes) -> tuple[int, ...]:
    """The text run by Python itself."""
    a, b, c, d = LAYOUT.unpack_from(data)
    (e,) = struct.unpack_from(">I", data, 32)
    f, g, h, _ = TAIL.unpack_from(data, 36)
    text = ["def program(a, b, c, d, e, f, g, h):", *lines, "    return a, b, c, d, e"]
    names = {
        **TYPES,
        **{name: name for name in TYPES},
        "truncate": lambda value, kind: TYPES[kind](value),
        "range": lambda *numbers: [Word(i, None) for i in range(*numbers)],
    }
    exec("\n".join(text), names)
    kinds = [Word(a, False), Word(b, False), Word(c, True), Word(d, True), Word(e, False)]
    result = names["program"](*kinds, Word(f, True), Word(g, None), Word(h, True))
    return tuple(number(value, False) for value in result)


def by_kernel(lines: list[str], data: bytes, folder: Path) -> tuple[int, ...]:
    path = folder / f"generated_{next(COUNT)}.py"
    path.write_text(HEADER + "\n".join([*lines, *END]) + "\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.program.load({}) as program:
        result = program.run(data)
    assert result.value == 1
    a, b, c, d = struct.unpack_from("<QQQQ", result.data)
    return a, b, c, d, struct.unpack_from(">I", result.data, 32)[0]


def same(lines: list[str], data: bytes, folder: Path) -> None:
    expected = by_python(lines, data)
    expected = (*expected[:4], expected[4] & 0xFFFFFFFF)
    try:
        found = by_kernel(lines, data, folder)
    except VerifierError as error:
        # The verifier gives up after a million instructions on all paths: not ours to mend.
        assume("BPF program is too large" not in error.log)
        raise
    assert found == expected, "\n".join(lines)


words = st.sampled_from([0, 1, 2, 5, 64, 255, 1 << 31, 1 << 63, MASK]) | st.integers(0, MASK)
packets = st.lists(words, min_size=6, max_size=6).map(
    lambda values: b"".join(struct.pack("<Q", value) for value in values)
)
slow = settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(autouse=True)
def checked(monkeypatch) -> None:
    monkeypatch.setenv("BAZAAR_BPF_CHECK", "1")


@slow
@given(st.lists(expressions(sorted(KINDS)), min_size=1, max_size=4), packets)
def test_expressions(folder, texts, data) -> None:
    lines = [f"    a ^= truncate({text}, u64)" for text in texts]
    same(lines, data, folder)


@slow
@given(statements(sorted(KINDS), "    "), packets)
def test_statements(folder, lines, data) -> None:
    same(lines, data, folder)
