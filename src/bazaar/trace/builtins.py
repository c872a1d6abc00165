"""The names every program knows, and its parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bazaar.trace.points import ProbePoint
from bazaar.trace.types import COMM, UNSIGNED, Container, Record, Text, Type

TYPES: dict[str, Type] = {
    "pid": UNSIGNED,
    "tid": UNSIGNED,
    "uid": UNSIGNED,
    "gid": UNSIGNED,
    "comm": Text(COMM),
    "nsecs": UNSIGNED,
    "elapsed": UNSIGNED,
    "cpu": UNSIGNED,
    "ncpus": UNSIGNED,
    "cgroup": UNSIGNED,
    "container": Container(),
    "curtask": UNSIGNED,
    "rand": UNSIGNED,
    "cpid": UNSIGNED,
}
_REFUSED = {
    "kstack": "kernel stacks are not supported yet",
    "ustack": "user stacks are not supported yet",
    "stack": "stacks are not supported yet",
    "func": "func needs a function's probe; probe is the name of this one",
    "retval": "retval needs a return probe; a system call's result is args.ret of its sys_exit",
    "reg": "registers are not supported",
    "username": "username is not supported; uid is the user's number",
    "ppid": "ppid is not supported yet",
    "jiffies": "jiffies is not supported; nsecs is the time in nanoseconds",
}
_ARGUMENT = re.compile(r"arg(\d{1,2})")
MOST_ARGUMENTS = 12  # of a raw tracepoint
_NUMBER = re.compile(r"[-+]?(0[xX][0-9A-Fa-f]+|\d+)")


def argument(name: str) -> int | None:
    """N of ``argN``."""
    found = _ARGUMENT.fullmatch(name)
    return int(found[1]) if found else None


def type_of(name: str, point: ProbePoint) -> Type | str:  # noqa: PLR0911 - one line a kind
    """The type of a builtin at this place, or what is wrong with it."""
    if name == "args":
        if point.kind != "tracepoint":
            hint = "; a raw tracepoint's are arg0, arg1, …" if point.kind == "rawtracepoint" else ""
            return f"args needs a tracepoint, and this is {point.text}{hint}"
        return Record()
    if name == "probe":
        return Text(len(point.text.encode()) + 1)
    number = argument(name)
    if number is not None:
        if point.kind != "rawtracepoint":
            return f"{name} needs a rawtracepoint; a tracepoint's fields are args.NAME"
        return (
            UNSIGNED
            if number < MOST_ARGUMENTS
            else f"a raw tracepoint has at most {MOST_ARGUMENTS} arguments"
        )
    if name in TYPES:
        return TYPES[name]
    if name in _REFUSED:
        return _REFUSED[name]
    import difflib

    near = difflib.get_close_matches(name, [*TYPES, "args", "probe"], 1)
    meant = f" Did you mean '{near[0]}'?" if near else ""
    return f"unknown name '{name}'.{meant}"


def parameter(parameters: Sequence[str], number: int) -> int:
    """``$number`` as a number; 0 when it was not given; ``$#`` is number 0."""
    if number == 0:
        return len(parameters)
    if number > len(parameters):
        return 0
    return int(parameters[number - 1], 0 if "x" in parameters[number - 1].lower() else 10)


def parameter_problem(parameters: Sequence[str], number: int) -> bool:
    """Whether ``$number`` is given and is no number of 64 bits."""
    if not 0 < number <= len(parameters):
        return False
    text = parameters[number - 1]
    if not _NUMBER.fullmatch(text) or len(text) > 21:
        return True
    return not -(1 << 63) <= parameter(parameters, number) < 1 << 64


def text_parameter(parameters: Sequence[str], number: int) -> str:
    """``$number`` as a string; empty when it was not given."""
    return parameters[number - 1] if 0 < number <= len(parameters) else ""
