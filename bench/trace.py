#!/usr/bin/env python3
"""What `bazaar trace` costs beside bpftrace: start-up, memory, time an event.

`bench/setup` fetches the rival (bpftrace of Debian 13, in a root of its own); without it its
figures are missing, not guessed. Runs are interleaved, so that both meet the same machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import report
from bazaar.bpf import programs, syscall
from bazaar.errors import BazaarError
from bazaar.model.record import replace
from bazaar.up.drill import bpftrace
from report import Figure

BAZAAR = [sys.executable, "-I", "-m", "bazaar", "trace"]
EMPTY = "BEGIN { exit(); }"
WRITES = "tracepoint:syscalls:sys_enter_write { @[comm] = hist(args.count); }"
EVENTS = 1_000_000
DD = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={EVENTS}", "status=none"]
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")


def run(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of one run."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}: {errors.read().decode(errors='replace')}")
    return seconds, usage.ru_maxrss / 1000


@contextlib.contextmanager
def tracing(command: Sequence[str]) -> Iterator[int]:
    """`command` runs and has attached its program, whose id this gives."""
    before = set(program_ids())
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with programs.statistics():  # that it runs is seen by its count
            found = wait_for_program(before, tracer)
        yield found
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)


def counted(command: Sequence[str]) -> tuple[float]:
    """Nanoseconds of one run of the program, as the kernel's statistics have it."""
    with (
        programs.statistics(),
        tracing(command) as number,
        programs.open_id(number) as program,
    ):
        start = program.info()
        subprocess.run(DD, check=True)
        end = program.info()
    return ((end.run_ns - start.run_ns) / max(1, end.runs - start.runs),)


def wall(command: Sequence[str] | None) -> float:
    """Seconds of a million writes while `command`, or nothing, traces them."""
    with tracing(command) if command else contextlib.nullcontext():
        begin = time.perf_counter()
        subprocess.run(DD, check=True)
        return time.perf_counter() - begin


def added(
    ours: Sequence[str], theirs: Sequence[str] | None, rounds: int
) -> tuple[list[float], list[float]]:
    """What each adds to one write, in nanoseconds: a traced run less the bare one of its round.

    BPF statistics are off, since they cost time themselves. The first round is not counted, and
    the order within a round rotates.
    """
    if STATISTICS.read_text().strip() != "0":
        sys.exit(f"{STATISTICS} is on and would be measured too; set it to 0")
    mine: list[float] = []
    other: list[float] = []
    runs = [None, ours] + ([theirs] if theirs else [])
    for turn in range(rounds + 1):
        seconds = [0.0] * len(runs)
        for at in range(len(runs)):
            place = (turn + at) % len(runs)
            seconds[place] = wall(runs[place])
        if turn:
            for took, results in zip(seconds[1:], (mine, other), strict=False):
                results.append((took - seconds[0]) * 1e9 / EVENTS)
    return mine, other


def wait_for_program(before: set[int], tracer: subprocess.Popen[bytes]) -> int:
    """The id of the tracepoint program the tracer loaded, once it runs."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit and tracer.poll() is None:
        for number in set(program_ids()) - before:
            try:
                with programs.open_id(number) as program:
                    info = program.info()
            except BazaarError:  # it is gone again
                continue
            if info.type == programs.ProgramType.TRACEPOINT and info.runs:
                time.sleep(0.2)
                return number
        # A write, so that the program runs.
        Path(os.devnull).write_bytes(b"x")
        time.sleep(0.05)
    sys.exit("the tracer did not attach its program")


def program_ids() -> list[int]:
    """The ids of all BPF programs in the kernel."""
    import struct

    found: list[int] = []
    number = 0
    while True:
        attributes = bytearray(struct.pack("<III", number, 0, 0))
        if syscall.call(syscall.Command.PROG_GET_NEXT_ID, attributes) < 0:
            return found
        number = struct.unpack_from("<I", attributes, 4)[0]
        found.append(number)


def interleave(
    measure: Callable[[Sequence[str]], tuple[float, ...]],
    ours: Sequence[str],
    theirs: Sequence[str] | None,
    rounds: int,
) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """Both in turn; the first round warms caches and is not counted."""
    mine: list[tuple[float, ...]] = []
    other: list[tuple[float, ...]] = []
    for turn in range(rounds + 1):
        pairs = [(ours, mine)] + ([(theirs, other)] if theirs else [])
        for command, results in pairs if turn % 2 else reversed(pairs):
            result = measure(command)
            if turn:
                results.append(result)
    return mine, other


def figure(
    name: str, unit: str, rival: str, mine: list[float], other: list[float], most: float
) -> Figure:
    """Medians, their ratio, and whether it is at most `most`; no goal without a rival."""
    value = round(statistics.median(mine), 4)
    if not other:
        return Figure(name, value, unit, note="bpftrace is missing: bench/setup")
    theirs = round(statistics.median(other), 4)
    if theirs <= 0:
        return Figure(name, value, unit, rival, theirs, note="lost in the noise")
    ratio = round(value / theirs, 3)
    return Figure(name, value, unit, rival, theirs, ratio, f"<= {most:.3g} x", ratio <= most)


def measure(rounds: int) -> list[Figure]:
    """All figures."""
    with bpftrace.rival(installed=False) as rival:
        if rival is None:
            print("bpftrace: missing; bench/setup installs it", file=sys.stderr)
        name = rival.name if rival else ""
        theirs = rival.command("-e", EMPTY) if rival else None
        mine, other = interleave(run, [*BAZAAR, "-e", EMPTY], theirs, rounds)
        found = [
            figure(called, unit, name, [one[at] for one in mine], [one[at] for one in other], m)
            for at, (called, unit, m) in enumerate(
                (("trace.start", "s", 0.5), ("trace.memory", "MB", 1 / 3))
            )
        ]
        ours = [*BAZAAR, "-e", WRITES]
        theirs = rival.command("-e", WRITES) if rival else None
        costs = added(ours, theirs, max(5, rounds))
        # A difference of two long times: only its spread tells how far to trust it.
        spread = "; ".join(f"{min(one):.0f} to {max(one):.0f} ns" for one in costs if one)
        cost = figure("trace.cost_wall", "ns", name, *costs, 1.1)
        found.append(replace(cost, note="; ".join(filter(None, (spread, cost.note)))))
        mine, other = interleave(counted, ours, theirs, max(3, rounds // 3))
        costs = [one[0] for one in mine], [one[0] for one in other]
        found.append(figure("trace.cost_stats", "ns", name, *costs, 1.1))
        return found


if __name__ == "__main__":
    options = report.parser((__doc__ or "").splitlines()[0])
    options.add_argument("-n", "--rounds", type=int, default=10)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: measure(chosen.rounds), chosen))
