"""The BTF reader: against bpftool on the kernel's own, on hand-made blobs, and fuzzed."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bazaar.bpf import btf, btf_index
from bazaar.bpf.btf import Btf, Kind
from bazaar.bpf.btf_builder import BtfBuilder
from bazaar.bpf.btf_types import (
    Array,
    Enum,
    FuncProto,
    Int,
    Parameter,
    Qualifier,
    Struct,
    Typedef,
    Var,
)
from bazaar.errors import BtfError
from bazaar.host import paths
from tests.bpf import kernel

has_btf = pytest.mark.skipif(not os.path.exists(btf.KERNEL), reason="the kernel has no BTF")


def blob(types: bytes, strings: bytes = b"\0", header: int = 24) -> bytes:
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, header, 0, len(types), len(types), len(strings))
    return head.ljust(header, b"\xff") + types + strings


class Writer(BtfBuilder):
    """Kinds the product does not write."""

    def raw(
        self, name: str, kind: int, low: int, rest: int, extra: bytes = b"", flag: int = 0
    ) -> int:
        return self._add(name, kind | flag << 7, low, rest, extra)

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int], union: bool = False
    ) -> int:
        extra = b"".join(struct.pack("<III", self.string(n), t, at) for n, t, at in members)
        return self.raw(name, 5 if union else 4, len(members), size, extra)


# --- by hand ---


def test_kinds_by_hand() -> None:
    w = Writer()
    number = w.integer("int", 4, signed=True)
    byte = w.integer("char", 1)
    pointer = w.raw("", Kind.PTR, 0, number)
    array = w.array(byte, number, 16)
    const = w.raw("", Kind.CONST, 0, number)
    alias = w.raw("alias_t", Kind.TYPEDEF, 0, const)
    values = struct.pack("<IiIi", w.string("NO"), -1, w.string("YES"), 1)
    enum = w.raw("answer", Kind.ENUM, 2, 4, values, flag=1)
    wide = w.raw(
        "wide", Kind.ENUM64, 1, 8, struct.pack("<III", w.string("BIG"), 5, 1)
    )  # 1 << 32 | 5
    proto = w.raw(
        "", Kind.FUNC_PROTO, 2, number, struct.pack("<IIII", w.string("a"), pointer, 0, 0)
    )
    function = w.function("f", proto, 1)
    variable = w.raw("v", Kind.VAR, 0, array, struct.pack("<I", 1))
    types = btf.parse(w.to_bytes())
    assert len(types) == 12
    assert types.type(0).name == "void"
    assert types.type(number) == Int(number, "int", 4, True, False, False, 32, 0)
    assert types.type(array) == Array(array, byte, number, 16)
    assert types.type(alias) == Typedef(alias, "alias_t", const)
    assert types.type(const) == Qualifier(const, Kind.CONST, number)
    assert types.resolve(alias) == types.type(number)
    assert types.type(enum) == Enum(enum, "answer", 4, True, (("NO", -1), ("YES", 1)))
    assert types.type(wide) == Enum(wide, "wide", 8, False, (("BIG", 1 << 32 | 5),))
    assert types.type(proto) == FuncProto(
        proto, number, (Parameter("a", pointer), Parameter("", 0))
    )
    assert types.type(variable) == Var(variable, "v", array, 1)
    assert types.find("f", Kind.FUNC) == function
    assert [types.size(one) for one in (number, pointer, array, alias, wide, variable)] == [
        4, 8, 16, 4, 8, 16,
    ]  # fmt: skip
    assert [types.spell(one) for one in (pointer, array, alias, enum)] == [
        "int *", "char[16]", "alias_t", "enum answer",
    ]  # fmt: skip
    for wrong, message in ((proto, "has no size"), (99, "has no type 99")):
        with pytest.raises(BtfError, match=message):
            types.size(wrong)
    with pytest.raises(BtfError, match="no struct 'int'"):
        types.find("int", Kind.STRUCT)


def test_members_through_anonymous_structs_and_unions() -> None:
    w = Writer()
    number = w.integer("int", 4, signed=True)
    inner = w.struct("", 8, ("x", number, 0), ("y", number, 32))
    union = w.struct("", 8, ("", inner, 0), ("raw", number, 0), union=True)
    named = w.struct("named", 16, ("first", number, 0), ("", union, 64))
    outer = w.struct("outer", 32, ("n", named, 64), ("direct", number, 0))
    types = btf.parse(w.to_bytes())
    assert types.field(named, "y").byte_offset == 12
    assert types.field(named, "raw").byte_offset == 8
    assert types.field(outer, "n.y").byte_offset == 20
    with pytest.raises(BtfError, match="struct named has no member 'z'"):
        types.field(outer, "n.z")
    with pytest.raises(BtfError, match="is no struct"):
        types.field(outer, "direct.x")


def test_bitfields() -> None:
    w = Writer()
    number = w.integer("unsigned int", 4)
    extra = struct.pack(
        "<IIIIII", w.string("a"), number, 3 << 24, w.string("b"), number, 5 << 24 | 3
    )
    flags = w.raw("flags", Kind.STRUCT, 2, 4, extra, flag=1)
    types = btf.parse(w.to_bytes())
    found = types.field(flags, "b")
    assert (found.offset, found.bits, found.type) == (3, 5, number)


def test_longer_headers_are_honoured() -> None:
    w = Writer()
    w.integer("int", 4)
    plain = w.to_bytes()
    longer = struct.pack("<HBBI", 0xEB9F, 1, 0, 40) + plain[8:24] + b"\xaa" * 16 + plain[24:]
    assert btf.parse(longer).find("int", Kind.INT) == 1


WRONG = [
    (b"", "shorter than its header"),
    (b"\0" * 24, "no BTF"),
    (struct.pack(">HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0", "other byte order"),
    (struct.pack("<HBBIIIII", 0xEB9F, 2, 0, 24, 0, 0, 0, 1) + b"\0", "version 2"),
    (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 99, 0, 1) + b"\0", "outside of it"),
    (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 8, 0, 0, 0, 1) + b"\0", "outside of it"),
    (blob(b"", b"x"), "begin and end with NUL"),
    (blob(struct.pack("<III", 0, 1 << 24, 4)), "cut short"),
    (blob(struct.pack("<III", 0, 31 << 24, 4)), "unknown kind"),
    (blob(struct.pack("<IIII", 77, 1 << 24, 4, 32)), "outside the strings"),
    (blob(b"\0\0\0"), "not aligned"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_malformed(content: bytes, message: str) -> None:
    with pytest.raises(BtfError, match=message):
        btf.parse(content)


def test_types_that_contain_themselves_end() -> None:
    w = Writer()
    w.raw("loop", Kind.TYPEDEF, 0, 1)
    w.array(2, 2, 2)
    w.raw("", Kind.PTR, 0, 3)
    w.struct("self", 4, ("", 4, 0))
    types = btf.parse(w.to_bytes())
    with pytest.raises(BtfError, match="defined by itself"):
        types.resolve(1)
    with pytest.raises(BtfError, match="too deep"):
        types.size(2)
    with pytest.raises(BtfError, match="has no member"):
        types.field(4, "x")
    assert types.spell(3).endswith("*")


def test_a_maze_of_anonymous_structs_ends() -> None:
    # Two ways into each next level: 2**60 paths, and a chain too long to follow.
    w = Writer()
    for number in range(1, 60):
        w.struct("", 8, ("", number + 1, 0), ("", number + 1, 32))
    w.struct("", 4)
    with pytest.raises(BtfError, match="has no member 'x'"):
        btf.parse(w.to_bytes()).field(1, "x")
    w = Writer()
    for number in range(1, 5000):
        w.struct("", 8, ("", number + 1, 0))
    w.struct("", 4)
    with pytest.raises(BtfError, match="nested too deep"):
        btf.parse(w.to_bytes()).field(1, "x")


# --- fuzzed ---


def walk(types: Btf) -> None:
    """Ask for all a blob can give; each answer is a value or BtfError."""
    for number in range(min(len(types), 200)):
        try:
            found = types.type(number)
            types.spell(number)
            if found.name:
                list(types.find_all(found.name))
            if isinstance(found, Struct):
                for member in found.members[:20]:
                    types.field(number, member.name or "x")
            types.size(number)
        except BtfError:
            pass


@given(st.binary(max_size=200), st.binary(max_size=40))
@settings(max_examples=400, deadline=None)
def test_random_types_give_a_value_or_our_error(types: bytes, strings: bytes) -> None:
    for content in (types, blob(types, b"\0" + strings + b"\0")):
        try:
            walk(btf.parse(content))
        except BtfError:
            continue


words = st.tuples(
    st.integers(0, 40), st.integers(0, 20), st.integers(0, 4), st.booleans(), st.integers(0, 12)
)


@given(st.lists(words, max_size=20), st.lists(st.integers(0, 0xFFFFFFFF), max_size=60))
@settings(max_examples=400, deadline=None)
def test_plausible_types_give_a_value_or_our_error(
    heads: list[tuple[int, int, int, bool, int]], extra: list[int]
) -> None:
    body = b""
    for name, kind, count, flag, rest in heads:
        body += struct.pack("<III", name, flag << 31 | kind << 24 | count, rest)
        size = (*btf_index._FIXED, 0)[kind] + (*btf_index._EACH, 0)[kind] * count
        part = struct.pack(f"<{len(extra)}I", *extra)[:size]
        body += part.ljust(size, b"\1")
    with contextlib.suppress(BtfError):
        walk(btf.parse(blob(body, b"\0int\0loop\0x\0" + b"y" * 40 + b"\0")))


@cache
def sample() -> bytes:
    w = Writer()
    number = w.integer("int", 4, signed=True)
    inner = w.struct("", 8, ("x", number, 0), ("y", number, 32))
    w.struct("named", 16, ("first", number, 0), ("", inner, 64))
    w.raw("alias", Kind.TYPEDEF, 0, inner)
    w.array(number, number, 3)
    w.raw("", Kind.PTR, 0, 4)
    return w.to_bytes()


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.integers(0, 400)
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_blobs_give_a_value_or_our_error(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(sample())
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(BtfError):
        walk(btf.parse(bytes(content[: len(content) - cut % 20])))


# --- the kernel's own ---


@cache
def by_bpftool() -> dict[int, dict[str, Any]]:
    command = ["bpftool", "-j", "btf", "dump", "file", btf.KERNEL]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    return {row["id"]: row for row in json.loads(shown)["types"]}


STRUCTS = [
    "task_struct",
    "sk_buff",
    "sock",
    "xdp_md",
    "file",
    "request",
    "trace_event_raw_sys_enter",
]


@has_btf
@kernel.bpftool
@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_as_bpftool_shows_them(name: str) -> None:
    types = btf.kernel()
    ours = types.struct(name)
    theirs = by_bpftool()[ours.id]
    assert (theirs["kind"], theirs["name"], theirs["size"]) == ("STRUCT", name, ours.size)
    assert [(m.name or "(anon)", m.type, m.offset, m.bits) for m in ours.members] == [
        (m["name"], m["type_id"], m["bits_offset"], m.get("bitfield_size", 0))
        for m in theirs["members"]
    ]


@has_btf
@kernel.bpftool
def test_every_named_type_is_found_where_bpftool_has_it() -> None:
    types = btf.kernel()
    rows = by_bpftool()
    assert len(types) == len(rows) + 1
    kinds = {"STRUCT": Kind.STRUCT, "TYPEDEF": Kind.TYPEDEF, "FUNC": Kind.FUNC, "ENUM": Kind.ENUM}
    chosen = [row for row in rows.values() if row["kind"] in kinds and row["name"] != "(anon)"]
    for row in chosen[::97]:
        found = [n for n in types.find_all(row["name"]) if types.kind(n) == kinds[row["kind"]]]
        assert row["id"] in found


@has_btf
def test_fields_the_tracer_needs() -> None:
    types = btf.kernel()
    task = types.struct("task_struct").id
    assert types.size(types.field(task, "comm").type) == 16
    assert types.spell(types.field(task, "real_parent").type) == "struct task_struct *"
    sock = types.struct("sock").id
    # Named members nested in a struct, and members behind anonymous unions.
    assert types.field(sock, "__sk_common.skc_dport").byte_offset == 12
    assert types.has("btf_trace_sched_switch", Kind.TYPEDEF)
    assert not types.has("btf_trace_nope", Kind.TYPEDEF)


MEASURE = """
import sys, time, resource
from bazaar.bpf import btf
def memory():
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])
before, begun = memory(), time.perf_counter()
types = btf.kernel(sys.argv[1])
types.field(types.struct('task_struct').id, 'comm')
print((time.perf_counter() - begun) * 1000, memory() - before)
"""


@has_btf
def test_a_warm_index_is_quick_and_small(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    cold = float(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    )
    figures = [
        [float(part) for part in subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.split()]
        for _ in range(5)
    ]  # fmt: skip
    milliseconds, kilobytes = (min(column) for column in zip(*figures, strict=True))
    assert milliseconds <= 10 < cold
    assert kilobytes <= 10 * 1024


@has_btf
def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    content = Path(btf.KERNEL).read_bytes()
    path = tmp_path / "btf" / "x.index"
    wanted = Btf(content, str(path)).find("task_struct", Kind.STRUCT)
    good = path.read_bytes()
    other = sample()
    for damaged in (b"", good[:50], good[:-8], good[:5000] + b"\xff" * 8 + good[5008:], b"x" * 90):
        path.write_bytes(damaged)
        assert Btf(content, str(path)).find("task_struct", Kind.STRUCT) == wanted
        assert path.read_bytes() == good
    # The same path, another blob: not taken for this one's.
    assert Btf(other, str(path)).find("named", Kind.STRUCT) == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["x.index"]


def test_a_cache_that_cannot_be_written_only_costs_time() -> None:
    assert Btf(sample(), "/proc/nowhere/btf/x.index").find("named", Kind.STRUCT) == 3


def test_the_cache_folder_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "/some/where", "relative"):
        if value is None:
            monkeypatch.delenv("BAZAAR_CACHE", raising=False)
        else:
            monkeypatch.setenv("BAZAAR_CACHE", value)
        assert btf_index.default_directory() == str(paths.cache())
    monkeypatch.delenv("BAZAAR_CACHE")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/x/c")
    assert btf_index.default_directory() == str(paths.cache()) == "/home/x/c/bazaar"
