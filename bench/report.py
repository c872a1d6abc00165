"""What every benchmark's command line has in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from bazaar.cli import figures, output
from bazaar.model.figure import Figure

Progress = Callable[[str], None]


def parser(about: str) -> argparse.ArgumentParser:
    """Options that every benchmark takes; add your own."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return made


def run(measure: Callable[[Progress], Sequence[Figure]], chosen: argparse.Namespace) -> int:
    """Measure with progress on stderr, print to stdout; the exit code tells whether goals hold."""
    progress = output.Progress()
    try:
        found = measure(progress.step)
    finally:
        progress.clear()
    return figures.show(found, as_json=chosen.output == "json", title="BENCHMARK")
