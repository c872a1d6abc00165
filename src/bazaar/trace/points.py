"""Where a clause attaches: from a probe's name to what the kernel has."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NoReturn

from bazaar.model.record import record, replace
from bazaar.trace import events, tree
from bazaar.trace.events import Event
from bazaar.trace.lexer import Span, error_at

ALIASES = {
    "t": "tracepoint", "rt": "rawtracepoint", "i": "interval", "p": "profile", "begin": "BEGIN",
    "end": "END", "k": "kprobe", "kr": "kretprobe", "f": "fentry", "fr": "fexit", "kfunc": "fentry",
    "kretfunc": "fexit", "u": "uprobe", "ur": "uretprobe", "U": "usdt", "s": "software",
    "h": "hardware", "w": "watchpoint", "it": "iter", "raw_tracepoint": "rawtracepoint",
}  # fmt: skip
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_KNOWN = ("BEGIN", "END", "tracepoint", "rawtracepoint", "interval", "profile")
_REFUSED = {
    "uprobe": "uprobe is not supported yet",
    "uretprobe": "uretprobe is not supported yet",
    "usdt": "usdt is not supported yet",
    "software": "software events are not supported yet; profile:hz:99 samples by time",
    "hardware": "hardware events are not supported yet; profile:hz:99 samples by time",
    "watchpoint": "watchpoints are not supported yet",
    "iter": "iterators are not supported yet",
    "self": "self: probes are not supported; interval:s:1 is near",
    "test": "test: probes are not supported",
    "bench": "bench: probes are not supported",
}
MOST = 1024  # probes of one program, as bpftrace has it
_PARAMETER = re.compile(r"\$(\d{1,3})")


@record
class ProbePoint:
    """One place to attach to; ``period`` in nanoseconds, or ``frequency`` in hertz."""

    kind: str  # BEGIN END tracepoint rawtracepoint interval profile
    text: str  # as the builtin `probe` shows it
    event: Event | None = None
    name: str = ""  # of a raw tracepoint
    period: int = 0
    frequency: int = 0
    span: Span = (0, 0)  # of the name in the program's text


def resolve(text: str, point: tree.Point, parameters: Sequence[str]) -> list[ProbePoint]:
    """What a probe's name stands for: several where it has wildcards; raises TraceError."""
    return [replace(one, span=point.span) for one in _Resolver(text, point, parameters).run()]


class _Resolver:
    def __init__(self, text: str, point: tree.Point, parameters: Sequence[str]) -> None:
        self.text = text
        self.point = point
        self.parts = [
            _PARAMETER.sub(lambda m: _parameter(parameters, m), part) for part in point.parts
        ]
        self.name = ":".join(self.parts)

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        raise error_at(self.text, message, self.point.span, hint)

    def run(self) -> list[ProbePoint]:  # noqa: RET503 - fail() does not return
        given = self.parts[0]
        kind = ALIASES.get(given, given)
        match kind:
            case "BEGIN" | "END":
                if len(self.parts) > 1:
                    self.fail(f"{given} takes nothing behind it")
                return [ProbePoint(kind, given)]
            case "tracepoint":
                return self.tracepoint()
            case "rawtracepoint":
                return self.raw_tracepoint()
            case "interval" | "profile":
                return [self.timer(kind)]
            case "kprobe" | "kretprobe" | "fentry" | "fexit":
                self.functions(kind)
            case _ if kind in _REFUSED:
                self.fail(_REFUSED[kind])
            case _:
                import difflib

                near = difflib.get_close_matches(given, [*_KNOWN, *ALIASES], 1)
                meant = f" Did you mean '{near[0]}'?" if near else ""
                self.fail(f"unknown probe '{given}'.{meant} There are: {', '.join(_KNOWN)}")

    def tracepoint(self) -> list[ProbePoint]:
        if len(self.parts) != 3 or not all(self.parts):
            self.fail("a tracepoint is written tracepoint:category:name")
        category, name = self.parts[1:]
        if any(mark in category + name for mark in "*?["):
            found = events.names(category, name)
            if not found:
                self.fail(f"no tracepoint matches {category}:{name}")
            if len(found) > MOST:
                self.fail(f"{len(found)} tracepoints match, more than {MOST}", "name fewer of them")
            loaded = [events.load(*one) for one in found]
            return [_tracepoint(event) for event in loaded if event is not None]
        event = events.load(category, name)
        if event is None:
            near = events.nearest(category, name)
            meant = f" Did you mean '{near}'?" if near else ""
            self.fail(f"there is no tracepoint '{category}:{name}'.{meant}")
        return [_tracepoint(event)]

    def raw_tracepoint(self) -> list[ProbePoint]:
        # rawtracepoint:module:name is the newer spelling.
        if len(self.parts) not in (2, 3) or not re.fullmatch(r"\w+", self.parts[-1]):
            self.fail("a raw tracepoint is written rawtracepoint:name")
        name = self.parts[-1]
        return [ProbePoint("rawtracepoint", self.name, name=name)]

    def timer(self, kind: str) -> ProbePoint:
        units = {"hz", *_NANOSECONDS}
        parts = self.parts[1:]
        if len(parts) == 1 and (found := re.fullmatch(r"(\d+)(s|ms|us|ns|hz)", parts[0])):
            parts = [found[2], found[1]]
        if len(parts) != 2 or parts[0] not in units or not parts[1].isdecimal():
            example = "interval:s:1" if kind == "interval" else "profile:hz:99"
            self.fail(f"write {kind}:UNIT:NUMBER, unit one of s, ms, us, hz: {example}")
        unit, number = parts[0], int(parts[1][:20])
        if number == 0:
            self.fail(f"{kind} needs a number above 0")
        if unit == "hz":
            if number > 100_000:
                self.fail(f"{number} times a second is more than the kernel samples")
            return ProbePoint(kind, self.name, frequency=number)
        period = number * _NANOSECONDS[unit]
        if period >= 1 << 63:
            self.fail("this time is too long")
        return ProbePoint(kind, self.name, period=period)

    def functions(self, kind: str) -> NoReturn:
        """kprobe and fentry: say what this kernel lacks, and what is near."""
        function = self.parts[-1] if len(self.parts) > 1 else ""
        if kind.startswith("kr") or kind == "kprobe":
            missing = not os.path.exists("/sys/bus/event_source/devices/kprobe")
            message = (
                "this kernel has no kprobes (CONFIG_KPROBES is off)"
                if missing
                else f"{kind} is not supported yet"
            )
        else:
            message = f"{kind} is not supported yet"
        self.fail(
            message,
            f"nearest here: {_near_function(function, leaving=kind in ('kretprobe', 'fexit'))}",
        )


def _tracepoint(event: Event) -> ProbePoint:
    return ProbePoint("tracepoint", f"tracepoint:{event.category}:{event.name}", event)


def _parameter(parameters: Sequence[str], found: re.Match[str]) -> str:
    number = int(found[1])
    return parameters[number - 1] if 0 < number <= len(parameters) else "0"


def _near_function(function: str, *, leaving: bool) -> str:
    """A tracepoint that sees what the kernel function does."""
    word = "sys_exit" if leaving else "sys_enter"
    stem = re.sub(
        r"^(__)?(x64_|arm64_|se_)?(vfs_|ksys_|do_sys_|__do_sys_|sys_|do_|__)", "", function
    )
    stem = {"open": "openat", "openat2": "openat2", "fork": "clone"}.get(stem, stem)
    for candidate in (stem, stem.split("_", maxsplit=1)[0]):
        if candidate and events.load("syscalls", f"{word}_{candidate}"):
            return f"tracepoint:syscalls:{word}_{candidate}, or rawtracepoint:{word}"
    near = events.nearest("", stem) if stem else None
    return f"tracepoint:{near}, or rawtracepoint:{word}" if near else f"rawtracepoint:{word}"
