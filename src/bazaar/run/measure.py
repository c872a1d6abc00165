"""Measuring cold starts: `bazaar run` against runsc alone for the same, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
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


def boot(
    image: Image,
    *,
    runs: int = 20,
    network: str = "none",
    command: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Times, Times]:
    """Time ``runs`` cold starts of `bazaar run` and of runsc alone, by turns: (ours, runsc's).

    runsc alone gets the same layers, mounted beforehand, and no network: what it does itself,
    nothing around it. With ``network="bridge"`` ours makes a namespace, too, which
    it does not. ``command`` is how `bazaar` is called; the launcher of this tree if None.
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
        spec = ContainerSpec(name, name, image, command=COMMAND)
        root = rootfs.mount(image.layers, folder)
        try:
            bundle.write(spec, folder, root)
            options = engine.command(folder, network=False)
            alone = [*options, "run", "--bundle", str(folder)]
            for number in range(runs + 1):
                progress(f"boot: cold start {number} of {runs}")
                by_turns = [
                    lambda: first_byte(ours),
                    lambda number=number: first_byte([*alone, f"{name}-{number}"]),
                ]
                # Who goes first changes: neither always finds the machine warmed by the other.
                order = (0, 1) if number % 2 else (1, 0)
                took = {which: by_turns[which]() for which in order}
                if number:  # the very first fills caches for both
                    first.append(took[0])
                    second.append(took[1])
        finally:
            rootfs.unmount(folder)
    return Times(tuple(first)), Times(tuple(second))


def figures(ours: Times, alone: Times) -> list[Figure]:
    """boot.p50 and boot.p99 with runsc alone as the rival."""
    found: list[Figure] = []
    for share in (50, 99):
        mine, other = ours.percentile(share), alone.percentile(share)
        goal = f"<= runsc + {SLACK:.0f} ms" if share == 50 else None
        found.append(
            Figure(
                name=f"boot.p{share}",
                value=round(mine, 1),
                unit="ms",
                rival="runsc alone",
                rival_value=round(other, 1),
                ratio=round(mine / other, 3),
                goal=goal,
                holds=mine <= other + SLACK if goal else None,
                note=f"{len(ours.values)} cold starts to the first byte of output",
            )
        )
    return found


def spread(times: Times) -> float:
    """The standard deviation, in milliseconds."""
    return statistics.pstdev(times.values)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    facts: dict[str, object] = {
        "kernel": os.uname().release,
        "cores": os.cpu_count() or 0,
        "python": sys.version.split()[0],
    }
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {**facts, "memory": pages * size, "load": round(os.getloadavg()[0], 2)}


def document(found: Sequence[Figure]) -> str:
    """The figures as the one JSON object every benchmark prints."""
    rows = [
        {name: getattr(figure, name) for name in Figure.__dataclass_fields__} for figure in found
    ]
    return json.dumps({"machine": machine(), "figures": rows}, indent=2)
