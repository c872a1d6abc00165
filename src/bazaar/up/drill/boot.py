"""Drill: how long a container with its own kernel takes from the command to its first byte."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.errors import UsageError
from bazaar.model.figure import Figure
from bazaar.up import client

RUNS = 20


def measure(bazaar: str, progress: Callable[[str], None]) -> list[Figure]:
    """Cold `bazaar run` of an image of this bazaar, and runsc alone for the same, in turns."""
    from bazaar.run import images
    from bazaar.run import measure as cold

    status = client.call(bazaar, "status")
    image = next((s["image"] for s in status["services"] if s["engine"] == "gvisor"), None)
    if image is None:
        raise UsageError(f"drill boot needs a service with a kernel of its own; {bazaar} has none")
    ours, alone = cold.boot(images.ensure(image, progress), runs=RUNS, progress=progress)
    return cold.figures(ours, alone)
