#!/usr/bin/env python3
"""What `bazaar trace` costs beside bpftrace: start-up, memory, time an event.

`bench/setup` fetches the rival (bpftrace of Debian 13, in a root of its own); without it its
figures are missing, not guessed. Runs are interleaved, so that both meet the same machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import report
from bazaar.bpf import programs, syscall
from bazaar.errors import BazaarError
from report import Figure

HERE = Path(__file__).resolve().parent

BAZAAR = [sys.executable, "-I", "-m", "bazaar", "trace"]
EMPTY = "BEGIN { exit(); }"
WRITES = "tracepoint:syscalls:sys_enter_write { @[comm] = hist(args.count); }"
EVENTS = 1_000_000
DD = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={EVENTS}", "status=none"]


class Rival:
    """bpftrace: the one of `bench/setup`, in its own root, else none."""

    def __init__(self) -> None:
        asked = [HERE / "setup", "--path"]
        setup = subprocess.run(asked, capture_output=True, text=True, check=True)
        self.root = Path(setup.stdout.strip()) / "trixie"
        self.name = ""
        self.binds: list[Path] = []
        if not (self.root / "usr/bin/bpftrace").exists():
            print("bpftrace: missing; bench/setup installs it", file=sys.stderr)
            return
        self._bind()
        done = subprocess.run(self.command("--version"), capture_output=True, text=True, check=True)
        self.name = done.stdout.strip().replace(" v", " ")

    def _bind(self) -> None:
        for source, kind in (("/proc", "--bind"), ("/sys", "--rbind")):
            target = self.root / source[1:]
            subprocess.run(["mount", kind, source, target], check=True)
            subprocess.run(["mount", "--make-rslave", target], check=True)
            self.binds.append(target)

    def close(self) -> None:
        for target in reversed(self.binds):
            subprocess.run(["umount", "-R", target], check=False)

    def command(self, *arguments: str) -> list[str]:
        return ["chroot", str(self.root), "bpftrace", *arguments]


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


def traced(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a million writes while `command` traces them, and its nanoseconds an event."""
    before = set(program_ids())
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = wait_for_program(before, tracer)
        with programs.open_id(found) as program:
            start = program.info()
            begin = time.perf_counter()
            subprocess.run(DD, check=True)
            seconds = time.perf_counter() - begin
            end = program.info()
    finally:
        tracer.send_signal(2)
        tracer.wait(30)
    return seconds, (end.run_ns - start.run_ns) / max(1, end.runs - start.runs)


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
    measure: Callable[[Sequence[str]], tuple[float, float]],
    ours: Sequence[str],
    theirs: Sequence[str] | None,
    rounds: int,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Both in turn; the first round warms caches and is not counted."""
    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []
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
    """Medians, their ratio, and whether it is at most `most`."""
    value = round(statistics.median(mine), 4)
    goal = f"<= {most:.3g} x"
    if not other:
        return Figure(name, value, unit, goal=goal, note="bpftrace is missing: bench/setup")
    theirs = round(statistics.median(other), 4)
    ratio = round(value / theirs, 3)
    return Figure(name, value, unit, rival, theirs, ratio, goal, ratio <= most)


def compare(
    first: tuple[str, str, float],
    second: tuple[str, str, float],
    rival: Rival,
    mine: list[tuple[float, float]],
    other: list[tuple[float, float]],
) -> list[Figure]:
    """The two figures each run gave."""
    return [
        figure(
            name, unit, rival.name, [pair[at] for pair in mine], [pair[at] for pair in other], most
        )
        for at, (name, unit, most) in enumerate((first, second))
    ]


def measure(rounds: int) -> list[Figure]:
    """All figures."""
    rival = Rival()
    try:
        theirs = rival.command("-e", EMPTY) if rival.name else None
        mine, other = interleave(run, [*BAZAAR, "-e", EMPTY], theirs, rounds)
        found = compare(
            ("trace.start", "s", 0.5), ("trace.memory", "MB", 1 / 3), rival, mine, other
        )
        theirs = rival.command("-e", WRITES) if rival.name else None
        with programs.statistics():
            mine, other = interleave(traced, [*BAZAAR, "-e", WRITES], theirs, max(3, rounds // 3))
        wall, counted = ("trace.cost_wall", "s", 1.1), ("trace.cost_stats", "ns", 1.1)
        return found + compare(wall, counted, rival, mine, other)
    finally:
        rival.close()


if __name__ == "__main__":
    options = report.parser((__doc__ or "").splitlines()[0])
    options.add_argument("-n", "--rounds", type=int, default=10)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: measure(chosen.rounds), chosen))
