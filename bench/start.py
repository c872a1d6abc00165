"""How long `bazaar --version` and `bazaar --help` take, start to exit."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import report
from report import ROOT, Figure, Progress

RUNS = 20


def start(*words: str) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    subprocess.run([str(ROOT / "bazaar"), *words], check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000


def measure(progress: Progress) -> list[Figure]:
    found: list[Figure] = []
    for word, goal in (("--version", 60.0), ("--help", 200.0)):
        progress(f"start: {word}")
        took = statistics.median(start(word) for _ in range(RUNS))
        name = f"start.{word.strip('-')}"
        found.append(
            Figure(name, round(took, 1), "ms", goal=f"<= {goal:.0f} ms", holds=took <= goal)
        )
    return found


if __name__ == "__main__":
    sys.exit(report.run(measure, report.parser(__doc__ or "").parse_args()))
