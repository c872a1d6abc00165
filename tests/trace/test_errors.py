"""Every refusal points at its place and says what to do."""

from __future__ import annotations

import pytest

from bazaar import trace
from bazaar.errors import TraceError
from tests.trace.kernel import needs_root

pytestmark = needs_root

CASES = [
    # program, line:column, the marked text, part of the message
    ("", "1:1", "", "no probe"),
    ("BEGIN", "1:6", "", "expecting '{'"),
    ("BEGIN { printf(\"a\" }", "1:20", "}", "expecting ')' or ','"),
    ("BEGIN { $x = \"ab", "1:14", '"', "does not end"),
    ("BEGIN { /* ", "1:9", "/*", "comment"),
    ("BEGIN { @ = 99999999999999999999; }", "1:13", "99999999999999999999", "64 bits"),
    ("BEGIN { 1; }", "1:9", "1", "does nothing"),
    ("BEGIN { pid = 1; }", "1:9", "pid", "assigned to"),
    ("BEGIN {\n  for ($i : 0..3) { } }", "2:3", "for", "loops"),
    ("BEGIN { while (1) { } }", "1:9", "while", "loops"),
    ("config = { }", "1:1", "config", "config"),
    ("#include <a.h>\nBEGIN { }", "1:1", "#include", "preprocessor"),
    ("struct a { }", "1:1", "struct", "C types"),
    ("BEGIN { @ = (1, 2); }", "1:13", "(1,", "tuples"),
    ("BEGIN { @ = *5; }", "1:13", "*", "pointers"),
    ("BEGIN { @ = (struct x *)5; }", "1:14", "struct", "casts"),
    ("kprobe:vfs_read { @ = count(); }", "1:1", "kprobe:vfs_read", "kprobe"),
    ("uprobe:/bin/sh:main { @ = count(); }", "1:1", "uprobe:/bin/sh:main", "uprobe"),
    ("tracpoint:a:b { }", "1:1", "tracpoint:a:b", "Did you mean 'tracepoint'?"),
    ("tracepoint:syscalls { }", "1:1", "tracepoint:syscalls", "category:name"),
    ("tracepoint:nope:no* { }", "1:1", "tracepoint:nope:no*", "no tracepoint matches"),
    ("interval:s:0 { }", "1:1", "interval:s:0", "above 0"),
    ("interval:d:1 { }", "1:1", "interval:d:1", "interval:s:1"),
    ("BEGIN { @x = 1; @x = \"a\"; }", "1:17", "@x", "'string[2]'"),
    ("BEGIN { @x[1] = 1; @x[\"a\"] = 2; }", "1:20", '@x["a"]', "expects arguments: 'int64'"),
    ("BEGIN { @x = count(); @x = 5; }", "1:23", "@x", "'count_t'"),
    ("BEGIN { @x = count(); @y = @x; }", "1:28", "@x", "per processor"),
    ("BEGIN { @x = hist(\"a\"); }", "1:14", 'hist("a")', "int arguments"),
    ("BEGIN { @x = hist(1, 9); }", "1:22", "9", "0 to 5"),
    ("BEGIN { @x = lhist(1, 5, 5, 1); }", "1:14", "lhist(1, 5, 5, 1)", "above the minimum"),
    ("BEGIN { count(); }", "1:9", "count()", "assigned to a map"),
    ("BEGIN { print($b); }", "1:15", "$b", "Undefined"),
    ("BEGIN { print(@never); }", "1:15", "@never", "Undefined map"),
    ("BEGIN { foo(1); }", "1:9", "foo(1)", "Unknown function: foo"),
    ("BEGIN { prinf(1); }", "1:9", "prinf(1)", "Did you mean 'printf'?"),
    ("BEGIN { system(\"ls\"); }", "1:9", 'system("ls")', "not supported"),
    ("BEGIN { @ = kstack; }", "1:13", "kstack", "not supported"),
    ("BEGIN { @ = pdi; }", "1:13", "pdi", "Did you mean 'pid'?"),
    ("BEGIN { @ = args.x; }", "1:13", "args", "needs a tracepoint"),
    ("BEGIN { if (comm == 5) { } }", "1:13", "comm == 5", "comparing 'string[16]' with 'int64'"),
    ("BEGIN /comm/ { }", "1:8", "comm", "must be a number"),
    ("BEGIN { @ = comm + 1; }", "1:13", "comm + 1", "types string, int"),
    ("BEGIN { printf(\"%s\", 5); }", "1:22", "5", "type string (int supplied)"),
    ("BEGIN { printf(\"%d\"); }", "1:9", 'printf("%d")', "Not enough arguments"),
    ("BEGIN { printf(\"%q\", 1); }", "1:16", '"%q"', "unknown format"),
    ("BEGIN { @ = $1; }", "1:13", "$1", "no number"),
    ("BEGIN { @x[1] = 1; delete(@x); }", "1:20", "delete(@x)", "key"),
    ("BEGIN { unroll(0) { } }", "1:16", "0", "1 to 100"),
    ("BEGIN { str(1); }", "1:9", "str(1)", "not used"),
    ("tracepoint:syscalls:sys_enter_openat { printf(\"%s\", args.filename); }", "1:53",
     "args.filename", "pointer"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "marked", "message"), CASES)
def test_refusals(text: str, place: str, marked: str, message: str):
    with pytest.raises(TraceError) as caught:
        trace.compile(text, parameters=["word"])
    error = caught.value
    assert f"{error.line}:{error.column}" == place, str(error)
    lines = text.splitlines() or [""]
    assert lines[error.line - 1][error.column - 1 :][: error.length].startswith(marked)
    assert len(marked) <= error.length
    assert message in error.message


def test_unknown_fields_name_the_known():
    with pytest.raises(TraceError) as caught:
        trace.compile("tracepoint:syscalls:sys_enter_write { @ = args.cuont; }")
    assert str(caught.value) == (
        "1:48  unknown field 'cuont' of sys_enter_write. It has: fd, buf, count\n"
        "     tracepoint:syscalls:sys_enter_write { @ = args.cuont; }\n"
        "                                                    ^^^^^"
    )


def test_unknown_tracepoints_name_the_nearest():
    with pytest.raises(TraceError, match="Did you mean 'syscalls:sys_enter_write'"):
        trace.compile("tracepoint:syscalls:sys_enter_wirte { @ = 1; }")


def test_functions_name_what_to_use_instead():
    with pytest.raises(TraceError) as caught:
        trace.compile("kprobe:vfs_read { @ = count(); }")
    hint = caught.value.hint or ""
    assert "tracepoint:syscalls:sys_enter_read, or rawtracepoint:sys_enter" in hint


def test_unknown_raw_tracepoints_point_at_the_probe():
    compiled = trace.compile("BEGIN { } rawtracepoint:no_such_thing { @ = count(); }")
    with pytest.raises(TraceError, match="no_such_thing") as caught:
        trace.attach(compiled)
    assert (caught.value.line, caught.value.column) == (1, 11)


def test_many_probes_come_off_again():
    compiled = trace.compile("tracepoint:syscalls:sys_enter_s* { @[probe] = count(); }")
    with trace.attach(compiled) as session:
        assert len(session.links) == compiled.probes > 20
        programs = {program.id for program in session.programs}
    from bazaar.bpf import programs as kernel
    from bazaar.errors import KernelError

    for number in programs:
        with pytest.raises(KernelError):
            kernel.open_id(number)
