"""How long the example takes: `up` with warm caches, a second `up`, `down`.

Needs root; the example's bazaar must not be up. Images are made beforehand, outside the clock.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import report
from report import ROOT, Figure, Progress


def run(*words: str, state: str) -> tuple[float, str]:
    """Seconds of one command, and what it printed."""
    began = time.perf_counter()
    environment = {**os.environ, "BAZAAR_STATE": state}
    done = subprocess.run(
        [str(ROOT / "bazaar"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"bazaar {' '.join(words)}: {done.stderr}")
    return time.perf_counter() - began, done.stdout


def measure(rounds: int, progress: Progress) -> list[Figure]:
    file = str(ROOT / "examples/fosdem.yaml")
    first: list[float] = []
    second: list[float] = []
    downs: list[float] = []
    starts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bazaar-bench-") as state:
        run("up", file, state=state)  # fills the caches
        run("down", "--volumes", "--yes", state=state)
        for number in range(rounds):
            progress(f"up: round {number + 1} of {rounds}")
            took, printed = run("up", file, "-o", "json", state=state)
            first.append(took)
            status = json.loads(printed)
            rows = [row for service in status["services"] for row in service["replicas"]]
            if not all(row["healthy"] for row in rows):
                raise SystemExit("up: not every replica is healthy")
            starts += [row["start_ms"] for row in rows]
            second.append(run("up", file, state=state)[0])
            downs.append(run("down", "--volumes", "--yes", state=state)[0])
    return [
        _figure("up.warm", first, 8.0),
        _figure("up.second", second, 2.0),
        _figure("up.down", downs, None),
        Figure("up.replica_start", round(statistics.median(starts), 1), "ms"),
    ]


def _figure(name: str, values: list[float], goal: float | None) -> Figure:
    median = statistics.median(values)
    return Figure(
        name,
        round(median, 2),
        "s",
        goal=None if goal is None else f"<= {goal:g} s",
        holds=None if goal is None else median <= goal,
        note=f"median of {len(values)}",
    )


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: measure(chosen.rounds, progress), chosen))
