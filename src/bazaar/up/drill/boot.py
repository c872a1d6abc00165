"""Drill: how long a container with its own kernel takes from the command to its first byte."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from bazaar.errors import UsageError
from bazaar.model.container import Image
from bazaar.model.figure import Figure
from bazaar.up import client

RUNS = 20


def measure(bazaar: str, progress: Callable[[str], None]) -> list[Figure]:
    """Cold `bazaar run` of an image of this bazaar, and runsc alone for the same, in turns."""
    from bazaar.run import images

    status = client.call(bazaar, "status")
    image = next((s["image"] for s in status["services"] if s["engine"] == "gvisor"), None)
    if image is None:
        raise UsageError(f"drill boot needs a service with a kernel of its own; {bazaar} has none")
    return cold(images.ensure(image, progress), RUNS, progress)


def cold(image: Image, runs: int, progress: Callable[[str], None]) -> list[Figure]:
    """Without a network on both sides, then on the default one, made by us while we start and
    for runsc beforehand."""
    from bazaar.run import measure as times

    bare = times.boot(image, runs=runs, progress=progress)
    wired = times.boot(image, runs=runs, network="bridge", wire=_wired, progress=progress)
    return [
        *times.figures(*bare, note=", without a network"),
        *times.figures(*wired, name="boot.bridge", note="; runsc's network was made beforehand"),
    ]


@contextmanager
def _wired(name: str) -> Generator[str]:
    from bazaar.site import run_network

    attachment = run_network.connect_run(f"run.{name}")
    try:
        yield attachment.namespace
    finally:
        run_network.disconnect_run(f"run.{name}")
