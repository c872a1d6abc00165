"""Drill: what the write-size probe costs a load that does nothing but write."""

from __future__ import annotations

import signal
import statistics
import subprocess
import time
from collections.abc import Callable

from bazaar.bpf import programs
from bazaar.errors import BazaarError
from bazaar.model.figure import Figure
from bazaar.up import client
from bazaar.up.drill import bpftrace

ROUNDS = 5
PAUSE = 300.0  # seconds after which the probes go on though we were killed
WRITES = 1_000_000
LOAD = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={WRITES}"]
PROBE = "tracepoint:syscalls:sys_enter_write { @[container] = hist(args.count); }"
# The same as far as bpftrace can say it: it knows no containers, a command's name is as long.
RIVAL = "tracepoint:syscalls:sys_enter_write { @[comm] = hist(args->count); }"


def measure(bazaar: str, progress: Callable[[str], None]) -> list[Figure]:
    """Wall clock of a million one-byte writes: bare, probed by us, probed by bpftrace."""
    bare: list[float] = []
    probed: list[tuple[float, float]] = []
    rivals: list[float] = []
    with bpftrace.rival(installed=True) as rival:
        client.call(bazaar, "pause", {"seconds": PAUSE})
        try:
            for number in range(ROUNDS):
                progress(f"round {number + 1} of {ROUNDS}")
                bare.append(_load())
                probed.append(_ours())
                if rival:
                    rivals.append(_theirs(rival))
        finally:
            client.call(bazaar, "pause", {"seconds": 0})
    return _figures(bare, probed, rivals, rival.name if rival else None)


def _figures(
    bare: list[float], probed: list[tuple[float, float]], rivals: list[float], name: str | None
) -> list[Figure]:
    base = statistics.median(bare)

    def percent(seconds: float) -> float:
        return (seconds - base) / base * 100

    cost = percent(statistics.median(seconds for seconds, _ in probed))
    rival = percent(statistics.median(rivals)) if rivals else None
    return [
        Figure("trace.bare", round(base * 1e9 / WRITES, 1), "ns/write"),
        Figure(
            "trace.cost",
            round(cost, 1),
            "%",
            name,
            None if rival is None else round(rival, 1),
            round(cost / rival, 3) if rival else None,
            "<= 1.1 x bpftrace" if rival else None,
            cost <= 1.1 * rival if rival else None,
            note=f"wall clock of dd writing {WRITES:,} single bytes, median of {ROUNDS}"
            + ("" if name else "; bpftrace is missing: bench/setup"),
        ),
        Figure(
            "trace.event",
            round(statistics.median(each for _, each in probed), 1),
            "ns",
            note="one run of the probe, by the kernel's own count",
        ),
    ]


def _load() -> float:
    began = time.monotonic()
    subprocess.run(LOAD, check=True, capture_output=True)
    return time.monotonic() - began


def _ours() -> tuple[float, float]:
    """Seconds of the load while the probe is attached; then nanoseconds a run of it takes,
    by the kernel's own count in a second load (counting costs, so not in the first)."""
    from bazaar import trace

    with trace.attach(trace.compile(PROBE)) as session:
        seconds = _load()
        with programs.statistics():
            before = session.figures
            _load()
            after = session.figures
    runs = after.runs - before.runs
    return seconds, (after.nanoseconds - before.nanoseconds) / max(runs, 1)


def _theirs(rival: bpftrace.Rival) -> float:
    """Seconds of the load while bpftrace is attached to the same event."""
    process = subprocess.Popen(
        rival.command("-e", f'BEGIN {{ printf("ready\\n"); }} {RIVAL}'),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and "ready" not in line:
            pass
        if not line:
            raise BazaarError("drill trace: bpftrace ended before it was attached")
        time.sleep(0.2)  # it says BEGIN before the last probe is attached
        return _load()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
