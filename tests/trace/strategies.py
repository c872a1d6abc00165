"""Random trace programs that make sense: every one must compile, and load."""

from __future__ import annotations

from hypothesis import strategies as st

INTEGERS = st.one_of(
    st.integers(0, 20).map(str),
    st.sampled_from(["255", "4096", "0xffffffff", "2147483648", "9223372036854775807", "1e9"]),
)
BUILTINS = st.sampled_from(
    ["pid", "tid", "uid", "gid", "nsecs", "elapsed", "cpu", "ncpus", "cgroup", "rand", "curtask"]
)
FIELDS = {
    "tracepoint:syscalls:sys_enter_write": ["args.fd", "args->count"],
    "tracepoint:sched:sched_switch": ["args.prev_pid", "args.next_prio", "args->prev_state"],
    "rawtracepoint:sys_enter": ["arg0", "arg1"],
    "profile:hz:99": [],
    "interval:s:1": [],
    "BEGIN": [],
    "END": [],
}
TEXT_FIELDS = {
    "tracepoint:syscalls:sys_enter_write": [
        "str(args.buf)",
        "str(args.buf, args.count)",
        "str(args.buf, 20)",
    ],
    "tracepoint:sched:sched_switch": ["args.prev_comm", "args.next_comm"],
}
OPERATORS = st.sampled_from([
    "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "==", "!=", "<", ">", "<=", ">=",
    "&&", "||",
])  # fmt: skip


def numbers(probe: str) -> st.SearchStrategy[str]:
    """Expressions that are numbers."""
    leaves = st.one_of(
        INTEGERS,
        BUILTINS,
        st.sampled_from(["$a", "$b", "@n", "@m[1]", "@m[pid]", "@k[comm, 2]", *FIELDS[probe]]),
    )

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, OPERATORS, inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
            st.tuples(st.sampled_from("-!~"), inner).map(lambda p: f"({p[0]} {p[1]})"),
            st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} ? {p[1]} : {p[2]})"),
            st.tuples(st.sampled_from(["u", ""]), st.sampled_from([8, 16, 32, 64]), inner).map(
                lambda p: f"({p[0]}int{p[1]}){p[2]}"
            ),
            st.sampled_from(
                ["$a++", "--$b", "@n++", "++@m[tid]", "@k[comm, 1]--", "has_key(@m, 2)"]
            ),
            texts(probe).map(lambda t: f'({t} == "abc")'),
            st.tuples(texts(probe), texts(probe)).map(lambda p: f"({p[0]} != {p[1]})"),
            texts(probe).map(lambda t: f'strncmp({t}, "x", 1)'),
        )

    return st.recursive(leaves, grow, max_leaves=6)


def texts(probe: str) -> st.SearchStrategy[str]:
    """Expressions that are strings."""
    leaves = ["comm", '"lit"', '"a much longer literal"', "$t", "@s", "probe", "str($1)"]
    leaf = st.sampled_from([*leaves, *TEXT_FIELDS.get(probe, [])])
    return st.one_of(leaf, st.tuples(leaf, leaf).map(lambda p: f"(pid > 5 ? {p[0]} : {p[1]})"))


def statements(probe: str) -> st.SearchStrategy[str]:
    """One statement, with its semicolon."""
    number, text = numbers(probe), texts(probe)
    plain = st.one_of(
        number.map(lambda n: f"$a = {n};"),
        st.tuples(
            st.sampled_from(["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]), number
        ).map(lambda p: f"$b {p[0]}= {p[1]};"),
        st.tuples(st.sampled_from(["+", "-", "*", "&", "|", "^", "<<"]), number).map(
            lambda p: f"@n {p[0]}= {p[1]};"
        ),
        number.map(lambda n: f"@m[{n}] = {n};"),
        st.tuples(text, number).map(lambda p: f"@k[{p[0]}, {p[1]}] = 3;"),
        text.map(lambda t: f"@s = {t};"),
        text.map(lambda t: f"$t = {t};"),
        st.tuples(text, number).map(lambda p: f"@hist[{p[0]}] = hist({p[1]});"),
        number.map(lambda n: f"@fine = hist({n}, 3);"),
        st.tuples(text, number).map(
            lambda p: f"@lin[{p[1]}, {p[0]}] = lhist({p[1]}, -50, 1000, 30);"
        ),
        st.tuples(st.sampled_from(["sum", "min", "max", "avg", "stats"]), number).map(
            lambda p: f"@{p[0]}[container] = {p[0]}({p[1]});"
        ),
        text.map(lambda t: f"@c[{t}] = count();"),
        st.tuples(number, text).map(lambda p: f'printf("%d %10s %x\\n", {p[0]}, {p[1]}, {p[0]});'),
        number.map(lambda n: f"print({n});"),
        text.map(lambda t: f"print({t});"),
        number.map(lambda n: f"delete(@m[{n}]);"),
        st.sampled_from(
            [
                "clear(@k);",
                "zero(@c);",
                "print(@hist);",
                "time();",
                "exit();",
                "return;",
                "print(@m[1]);",
            ]
        ),
    )
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.tuples(number, inner, inner).map(
                lambda p: f"if ({p[0]}) {{ {p[1]} }} else {{ {p[2]} }}"
            ),
            inner.map(lambda s: f"unroll (2) {{ {s} }}"),
        ),
        max_leaves=3,
    )


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A whole program; what it reads is set first."""
    first = '@n = 1; @m[1] = 1; @k["x", 1] = 1; @s = ""; @c["x"] = count(); @hist[""] = hist(1);'
    parts = [f"BEGIN {{ {first} }}"]
    for _ in range(draw(st.integers(1, 2))):
        probe = draw(st.sampled_from(sorted(FIELDS)))
        predicate = draw(st.one_of(st.just(""), numbers(probe).map(lambda n: f"/({n})/ ")))
        predicate = predicate if "$" not in predicate else ""
        body = " ".join(draw(st.lists(statements(probe), min_size=1, max_size=4)))
        parts.append(f'{probe} {predicate}{{ $a = 1; $b = 2; $t = ""; {body} }}')
    return "\n".join(parts)
