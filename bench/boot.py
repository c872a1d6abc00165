"""Cold starts: `bazaar run` to its first byte of output, against runsc alone in the same run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from bazaar.cli.output import Progress, table
from bazaar.run import images, measure

IMAGE = "deb://bookworm?packages=hello"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("-n", "--runs", type=int, default=30)
    parser.add_argument("--image", default=IMAGE)
    parser.add_argument("--network", default="none", help="bridge: ours makes a network, too")
    given = parser.parse_args()
    progress = Progress()
    image = images.ensure(given.image, progress.step)
    ours, alone = measure.boot(
        image, runs=given.runs, network=given.network, progress=progress.step
    )
    progress.clear()
    figures = measure.figures(ours, alone)
    if given.output == "json":
        print(measure.document(figures))
        return 0
    rows = [
        (
            one.name,
            f"{one.value} ms",
            one.goal or "-",
            f"{one.rival} {one.rival_value} ms",
            {True: "holds", False: "missed", None: "-"}[one.holds],
        )
        for one in figures
    ]
    print(table(("BOOT", "MEASURED", "GOAL", "RIVAL", ""), rows))
    return 0 if all(one.holds is not False for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
