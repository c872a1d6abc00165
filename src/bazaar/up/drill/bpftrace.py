"""bpftrace, which tracing is compared with: that of `bench/setup`, or the one installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.host import paths
from bazaar.model.record import record

# In a mount namespace of their own, which goes with whoever holds it: nothing is left to unmount
# when we are killed.
_MOUNTS = (
    'mount --rbind /proc "$1/proc" && mount --rbind /sys "$1/sys" && echo ready '
    "&& exec sleep infinity"
)


@record
class Rival:
    """A bpftrace that runs here: its name with its version, and how it is called."""

    name: str
    program: tuple[str, ...]

    def command(self, *arguments: str) -> list[str]:
        """The command line that gives bpftrace these arguments."""
        return [*self.program, *arguments]


def root() -> Path:
    """Where `bench/setup` puts Debian 13 with its bpftrace."""
    return paths.cache() / "bench" / "trixie"


@contextlib.contextmanager
def rival(*, installed: bool) -> Generator[Rival | None]:
    """The bpftrace of `bench/setup`; without it, where that may serve, the one ``installed``.

    None where neither is there. Raises MissingError for one that does not run.
    """
    if (root() / "usr/bin/bpftrace").exists():
        with _mounted(root()) as holder:
            program = ("nsenter", "--mount", "--target", str(holder), "chroot", str(root()))
            yield _named((*program, "bpftrace"))
        return
    found = shutil.which("bpftrace") if installed else None
    yield _named((found,)) if found else None


@contextlib.contextmanager
def _mounted(folder: Path) -> Generator[int]:
    """A process in whose mounts ``folder`` has /proc and /sys."""
    process = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount"),
            *("sh", "-c", _MOUNTS, "sh", str(folder)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        if (said := process.stdout.readline().strip()) != "ready":
            raise MissingError(
                f"bpftrace of {folder} cannot be run: {said}", hint="run bench/setup as root"
            )
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def _named(program: Sequence[str]) -> Rival:
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    name = done.stdout.strip().replace(" v", " ")
    if done.returncode != 0 or not name:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise MissingError(
            f"{' '.join(program)} does not run: {said}", hint="remove it, or run bench/setup again"
        )
    return Rival(name, tuple(program))
