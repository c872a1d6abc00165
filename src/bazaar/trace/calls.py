"""What functions take and give."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bazaar.trace import builtins, formats, tree
from bazaar.trace.types import (
    NOTHING,
    NUMBER,
    STRING,
    Aggregate,
    Container,
    Int,
    Pointer,
    Text,
    Type,
    is_number,
    name_of,
)

if TYPE_CHECKING:
    from bazaar.trace.check import Checker

# name → least and most arguments
AGGREGATES = {
    "count": (0, 0), "sum": (1, 1), "avg": (1, 1), "min": (1, 1), "max": (1, 1), "stats": (1, 1),
    "hist": (1, 2), "lhist": (4, 4),
}  # fmt: skip
CALLS = {
    "printf": (1, 33), "print": (1, 3), "clear": (1, 1), "zero": (1, 1), "delete": (1, 9),
    "exit": (0, 1), "time": (0, 1), "str": (1, 2), "strncmp": (3, 3), "has_key": (2, 9),
}  # fmt: skip
_NOT_YET = frozenset((
    "join", "buf", "ksym", "usym", "kaddr", "uaddr", "kstack", "ustack", "cat", "system",
    "ntop", "pton", "reg", "cgroupid", "strftime", "signal", "macaddr", "bswap", "skboutput",
    "strerror", "override", "path", "len", "strcontains", "cgroup_path", "sizeof",
    "offsetof", "nsecs", "kptr", "uptr", "errorf", "warnf", "assert", "unwatch",
    "skb_output", "tseries", "getopt", "syscall_name", "socket_cookie",
))  # fmt: skip
MOST_BUCKETS = 1000  # of lhist(), as bpftrace has it
LONGEST = 1024  # bytes str() reads at most where it is told how many


def check_aggregate(checker: Checker, node: tree.Call) -> Aggregate:
    """The type of count(), hist(…) and the like."""
    _count(checker, node, *AGGREGATES[node.name])
    signed = False
    if node.arguments:
        kind = checker.of(node.arguments[0])
        if not is_number(kind):
            checker.fail(
                f"{node.name}() only supports int arguments ({name_of(kind)} provided)", node
            )
        signed = isinstance(kind, Int) and kind.signed
    if node.name == "hist":
        bits = 0
        for argument in node.arguments[1:]:
            bits = checker.constant(argument, "hist()")
            if not 0 <= bits <= 5:
                message = f"hist(): the second argument is a number from 0 to 5, not {bits}"
                checker.fail(message, argument)
        return Aggregate("hist", parameters=(bits,))
    if node.name == "lhist":
        least, most, step = (checker.constant(one, "lhist()") for one in node.arguments[1:])
        if step <= 0:
            checker.fail("lhist(): the step must be above 0", node.arguments[3])
        if most <= least:
            checker.fail(f"lhist(): the maximum ({most}) must be above the minimum ({least})", node)
        if (most - least) // step > MOST_BUCKETS:
            checker.fail(
                f"lhist(): {(most - least) // step} buckets are more than {MOST_BUCKETS}", node
            )
        if not -(1 << 62) < least <= most < 1 << 62:
            checker.fail("lhist(): these bounds are too big", node)
        return Aggregate("lhist", parameters=(least, most, step))
    return Aggregate(node.name, signed)


def check_call(checker: Checker, node: tree.Call) -> Type:
    """The type of any other call; raises TraceError for what is unknown or worded wrongly."""
    if node.name not in CALLS:
        if node.name in _NOT_YET:
            checker.fail(f"{node.name}() is not supported yet", node)
        import difflib

        near = difflib.get_close_matches(node.name, [*CALLS, *AGGREGATES], 1)
        meant = f". Did you mean '{near[0]}'?" if near else ""
        checker.fail(f"Unknown function: {node.name}{meant}", node)
    _count(checker, node, *CALLS[node.name])
    return _HANDLERS[node.name](checker, node)


def _count(checker: Checker, node: tree.Call, least: int, most: int) -> None:
    given = len(node.arguments)
    if least <= given <= most:
        return
    takes = str(least) if least == most else f"{least} to {most}"
    plural = "" if takes == "1" else "s"
    checker.fail(f"{node.name}() takes {takes} argument{plural} ({given} given)", node)


def literal(checker: Checker, node: tree.Expression, what: str) -> str:
    """The text of a string literal."""
    if not isinstance(node, tree.String):
        checker.fail(f"{what} must be a string literal", node)
    checker.of(node)
    return node.value


def _printf(checker: Checker, node: tree.Call) -> Type:
    text = literal(checker, node.arguments[0], "printf's format")
    try:
        pieces = formats.parse(text)
    except ValueError as error:
        checker.fail(f"printf: {error}", node.arguments[0])
    wanted = [piece for piece in pieces if isinstance(piece, formats.Specifier)]
    given = node.arguments[1:]
    if len(wanted) != len(given):
        which = "Not enough" if len(given) < len(wanted) else "Too many"
        checker.fail(
            f"printf: {which} arguments for format string "
            f"({len(given)} supplied, {len(wanted)} expected)",
            node,
        )
    for piece, argument in zip(wanted, given, strict=True):
        kind = checker.of(argument)
        if piece.kind == "s":
            if isinstance(kind, Pointer):
                checker.fail(
                    "printf: %s specifier expects a value of type string (pointer supplied)",
                    argument,
                    f"str({tree.expression(argument)}) reads the string it points to",
                )
            fits = isinstance(kind, Text | Container)
        else:
            fits = isinstance(kind, Int | Pointer)
        if not fits:
            expected = "string" if piece.kind == "s" else "int"
            checker.fail(
                f"printf: %{piece.kind} specifier expects a value of type {expected} "
                f"({name_of(kind)} supplied)",
                argument,
            )
    return NOTHING


def _print(checker: Checker, node: tree.Call) -> Type:
    first, *rest = node.arguments
    info = checker.maps.get(first.name) if isinstance(first, tree.Map) else None
    if (
        isinstance(first, tree.Map)
        and not first.keys
        and (info is None or info.keys or info.value is None or isinstance(info.value, Aggregate))
    ):
        checker.map_of(first)
        for argument in rest:
            if checker.constant(argument, "print()") < 0:
                checker.fail("print() takes numbers from 0 on here", argument)
        if rest and info is not None and info.keys == ():
            checker.fail(f"print(): {first.name} has no keys, so there is no top of it", node)
        return NOTHING
    if rest:
        checker.fail("print() takes top and div with a map only", node)
    if isinstance(first, tree.Map) and info is not None and isinstance(info.value, Aggregate):
        checker.map_keys(first)
        return NOTHING
    kind = checker.of(first)
    if not isinstance(kind, Int | Text | Pointer | Container):
        checker.fail(f"print() cannot show a value of type {kind}", first)
    return NOTHING


def _whole_map(checker: Checker, node: tree.Call) -> Type:
    target = node.arguments[0]
    if not isinstance(target, tree.Map) or target.keys:
        checker.fail(f"{node.name}() takes a map", target)
    checker.map_of(target)
    return NOTHING


def keyed(node: tree.Call) -> tree.Map | None:
    """``@m[k]`` of delete(@m[k]) and delete(@m, k) alike; None when there is no map."""
    target, *keys = node.arguments
    if not isinstance(target, tree.Map) or (target.keys and keys):
        return None
    return tree.Map(target.span, target.name, target.keys or tuple(keys))


def _keyed(checker: Checker, node: tree.Call) -> Type:
    target = keyed(node)
    if target is None:
        checker.fail(f"{node.name}() takes a map and a key", node)
    info = checker.map_of(target)
    if info.keys and not target.keys:
        checker.fail(
            f"{node.name}() needs a key of {target.name}",
            node,
            f"clear({target.name}) removes all of them",
        )
    checker.map_keys(target)
    return NUMBER if node.name == "has_key" else NOTHING


def _exit(checker: Checker, node: tree.Call) -> Type:
    for argument in node.arguments:
        kind = checker.of(argument)
        if not isinstance(kind, Int):
            checker.fail(f"exit() only supports int arguments ({name_of(kind)} provided)", argument)
    return NOTHING


def _time(checker: Checker, node: tree.Call) -> Type:
    for argument in node.arguments:
        literal(checker, argument, "time's format")
    return NOTHING


def _str(checker: Checker, node: tree.Call) -> Type:
    first, *rest = node.arguments
    size = STRING
    if rest:
        if not is_number(checker.of(rest[0])):
            checker.fail("str(): the length must be a number", rest[0])
        if isinstance(rest[0], tree.Integer):
            # One more for the final zero: str(p, 5) gives up to five characters.
            if not 0 < rest[0].value < LONGEST:
                checker.fail(f"str(): the length is a number from 1 to {LONGEST - 1}", rest[0])
            size = rest[0].value + 1
    if isinstance(first, tree.Positional):
        text = (
            builtins.text_parameter(checker.parameters, first.number)
            if first.number
            else str(len(checker.parameters))
        )
        encoded = text.encode(errors="replace")
        return Text(min(len(encoded), LONGEST - 1) + 1)
    kind = checker.of(first)
    if isinstance(kind, Text):
        return kind
    if not isinstance(kind, Pointer | Int):
        checker.fail(f"str() only supports pointers and integers ({name_of(kind)} provided)", first)
    return Text(size)


def _strncmp(checker: Checker, node: tree.Call) -> Type:
    for argument in node.arguments[:2]:
        kind = checker.of(argument)
        if not isinstance(kind, Text):
            checker.fail(
                f"strncmp() only supports string arguments ({name_of(kind)} provided)", argument
            )
    count = checker.constant(node.arguments[2], "strncmp()")
    if not 0 <= count <= LONGEST:
        checker.fail(f"strncmp() compares 0 to {LONGEST} bytes", node.arguments[2])
    return NUMBER


_HANDLERS: dict[str, Callable[[Checker, tree.Call], Type]] = {
    "printf": _printf,
    "print": _print,
    "clear": _whole_map,
    "zero": _whole_map,
    "delete": _keyed,
    "has_key": _keyed,
    "exit": _exit,
    "time": _time,
    "str": _str,
    "strncmp": _strncmp,
}
