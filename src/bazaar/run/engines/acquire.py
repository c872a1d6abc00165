"""Getting a runsc: gVisor's own release, else a build of its Go module.

The module, its version and the hashes of all it needs are pinned in go/runsc (go.mod, go.sum);
the Go client checks them. It has to be built by a toolchain of its own age.
"""

from __future__ import annotations

import contextlib
import platform
import tempfile
from collections.abc import Generator
from pathlib import Path

from bazaar.errors import ChecksumError, MissingError
from bazaar.host import paths
from bazaar.run.engines import Progress

RELEASE = "https://storage.googleapis.com/gvisor/releases/release/latest"
TOOLCHAIN = "go1.23.6"
PROGRAM = "gvisor.dev/gvisor/runsc"


def get(progress: Progress) -> Path:
    """A runsc in the cache. Raises MissingError with what each way of getting one said."""
    reasons: list[str] = []
    for way in (release, build):
        try:
            return way(progress)
        except (MissingError, ChecksumError) as error:
            reasons.append(error.message)
    raise MissingError(
        "no gVisor could be had: " + "; ".join(reasons),
        hint="install runsc, or use --engine shared",
    )


def release(progress: Progress, base: str = RELEASE, timeout: float = 5.0) -> Path:
    """Download gVisor's newest release and check its SHA-512.

    Raises MissingError when it cannot be reached, ChecksumError when it is not what its checksum
    says.
    """
    from bazaar.host import downloads

    source = f"{base}/{platform.machine()}/runsc"
    progress("gVisor: asking for its release")
    wanted = downloads.checksum(source + ".sha512", "runsc", timeout=timeout)
    target = paths.cache() / "bin" / f"runsc-{wanted[:16]}"
    if not target.exists():
        with _folder_beside(target) as folder:
            program = folder / "runsc"
            downloads.fetch(source, program, wanted, progress, what="gVisor's release")
            program.chmod(0o755)
            program.replace(target)
    return target


def build(progress: Progress) -> Path:
    """Build runsc from its Go module with a Go client of this machine or of Debian."""
    from bazaar.host import go_build, locks

    recipe = go_build.Recipe("gVisor", go_build.MODULES / "runsc", (PROGRAM,), toolchain=TOOLCHAIN)
    target = paths.cache() / "bin" / f"runsc-{go_build.key(recipe)}"
    if target.exists():
        return target
    with locks.waiting(paths.cache() / "bin" / "build.lock"):
        if target.exists():  # somebody else built it meanwhile
            return target
        progress("gVisor: building runsc from its Go module, about a minute")
        with _folder_beside(target) as folder:
            go_build.build(recipe, folder, progress)
            (folder / "runsc").replace(target)
    return target


@contextlib.contextmanager
def _folder_beside(target: Path) -> Generator[Path]:
    """A folder beside ``target`` that is gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".runsc-") as folder:
        yield Path(folder)
