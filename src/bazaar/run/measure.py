"""Measuring cold starts: `bazaar run` against runsc alone for the same, in turns."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from bazaar.errors import EngineError
from bazaar.host import paths
from bazaar.model.container import ContainerSpec, Image
from bazaar.model.figure import Figure
from bazaar.model.record import record
from bazaar.run import bundle, engines, rootfs

SLACK = 60.0  # milliseconds `bazaar run` may take longer than runsc alone
SAID = b"first byte\n"
COMMAND = ("/bin/echo", "first byte")


@record
class Times:
    """Milliseconds from exec to the first byte of output, one a run."""

    values: tuple[float, ...]

    def percentile(self, share: int) -> float:
        """The value ``share`` per cent of the runs stay at or below (the nearest that occurred)."""
        ordered = sorted(self.values)
        return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def first_byte(command: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Milliseconds from starting ``command`` to the first byte it writes to its stdout.

    Raises EngineError when it writes anything but what it was asked to.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 1)
    took = (time.perf_counter() - begin) * 1000
    rest, said = process.communicate(timeout=60)
    if process.returncode != 0 or SAID[1:] != rest:
        words = said.decode(errors="replace").strip().splitlines()[-1:] or [
            f"exit {process.returncode}"
        ]
        raise EngineError(f"{command[0]} did not run the measured container: {words[0]}")
    return took


@contextlib.contextmanager
def _unwired(name: str) -> Generator[None]:
    """No network for a run of runsc alone."""
    yield None


def boot(
    image: Image,
    *,
    runs: int = 20,
    network: str = "none",
    wire: Callable[[str], AbstractContextManager[str | None]] = _unwired,
    command: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Times, Times]:
    """Time ``runs`` cold starts of `bazaar run` and of runsc alone, by turns: (ours, runsc's).

    runsc alone gets the same layers, mounted beforehand, and a namespace that ``wire`` made
    beforehand: what it does itself, nothing around it. ``command`` is how `bazaar` is called;
    the launcher of this tree if None.
    """
    engine = engines.get("gvisor")
    engine.ensure(progress)
    launcher = list(command or [str(Path(__file__).resolve().parents[3] / "bazaar")])
    ours = [*launcher, "run", "--network", network, image.reference, "--", *COMMAND]
    first: list[float] = []
    second: list[float] = []
    # Below the state folder, for the upper directory of an overlay cannot lie on any file system.
    paths.state().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="measure-", dir=paths.state()) as temporary:
        folder = Path(temporary)
        name = f"measure-{uuid.uuid4().hex[:8]}"
        root = rootfs.mount(image.layers, folder)

        def alone(number: int) -> float:
            own = f"{name}-{number}"
            with wire(own) as namespace:
                spec = ContainerSpec(own, own, image, command=COMMAND, namespace=namespace)
                bundle.write(spec, folder, root)
                options = engine.command(folder, network=namespace is not None)
                return first_byte([*options, "run", "--bundle", str(folder), own])

        try:
            for number in range(runs + 1):
                progress(f"boot: cold start {number} of {runs}, network {network}")
                # Who goes first changes, so that neither always finds the machine warmed.
                if number % 2:
                    mine, rival = first_byte(ours), alone(number)
                else:
                    rival, mine = alone(number), first_byte(ours)
                if number:  # the very first fills caches for both
                    first.append(mine)
                    second.append(rival)
        finally:
            rootfs.unmount(folder)
    return Times(tuple(first)), Times(tuple(second))


def figures(ours: Times, alone: Times, name: str = "boot", note: str = "") -> list[Figure]:
    """``name``.p50, which has a goal, and .p99, with runsc alone as the rival."""
    found: list[Figure] = []
    for share in (50, 99):
        mine, other = ours.percentile(share), alone.percentile(share)
        goal = f"<= runsc + {SLACK:.0f} ms" if share == 50 else None
        found.append(
            Figure(
                name=f"{name}.p{share}",
                value=round(mine, 1),
                unit="ms",
                rival="runsc alone",
                rival_value=round(other, 1),
                ratio=round(mine / other, 3),
                goal=goal,
                holds=mine <= other + SLACK if goal else None,
                note=f"{len(ours.values)} cold starts to the first byte of output{note}",
            )
        )
    return found
