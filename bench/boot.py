"""Cold starts: `bazaar run` to its first byte of output, against runsc alone in the same run."""

from __future__ import annotations

import sys

import report
from bazaar.run import images
from bazaar.up.drill.boot import cold
from report import Figure, Progress

IMAGE = "deb://bookworm?packages=hello"


def measure(reference: str, runs: int, progress: Progress) -> list[Figure]:
    return cold(images.ensure(reference, progress), runs, progress)


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("-n", "--runs", type=int, default=30)
    options.add_argument("--image", default=IMAGE)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: measure(chosen.image, chosen.runs, progress), chosen))
