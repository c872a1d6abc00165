"""The distribution's packages for a bundle: an archive with an index, as apt reads them.

They are those of this machine's own release, with all they need; a machine takes what it lacks.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bazaar.errors import BazaarError, MissingError
from bazaar.host import commands, files, packages, paths

Progress = Callable[[str], None]
NAMES = ("containerd", "runc", "nftables", "conntrack", "haproxy", "socat")


def system() -> str:
    """The release whose packages apt gets here; "" where there is none."""
    return packages.system().name if packages.installable() else ""


def archive(progress: Progress, names: Sequence[str] = NAMES) -> Path:
    """A folder with the packages and `Packages`, their index. Raises MissingError without apt."""
    apt = commands.find("apt-get", package="apt")
    progress(f"getting the packages {', '.join(names)}")
    parent = paths.cache() / "cluster"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".packages-") as made:
        folder = Path(made)
        (folder / "debs" / "partial").mkdir(parents=True)
        (folder / "status").touch()  # as if nothing were installed: all they need comes too
        try:
            commands.run(
                [
                    *(apt, "-q", "-y", "--no-install-recommends", "--download-only"),
                    *("-o", f"Dir::State::status={folder / 'status'}"),
                    *("-o", f"Dir::Cache::archives={folder / 'debs'}"),
                    *("-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root"),
                    *("install", *names),
                ],
                timeout=600,
            )
        except BazaarError as error:
            raise MissingError(
                f"the packages cannot be had: {error.message}", hint="`apt-get update`, and again"
            ) from error
        debs = folder / "set"
        debs.mkdir(mode=0o755)
        digests: dict[str, str] = {}
        for path in sorted((folder / "debs").glob("*.deb")):
            shutil.move(path, debs / path.name)
            digests[path.name] = files.digest(debs / path.name)
            (debs / path.name).chmod(0o444)
        files.write_atomic(debs / "Packages", "".join(_index(debs, digests)), 0o444)
        files.write_json(debs / "manifest.json", digests, 0o444)
        key = files.digest(debs / "manifest.json")[:16]
        target = parent / f"packages-{key}"
        if not target.exists():
            debs.rename(target)
    return target


def _index(folder: Path, digests: dict[str, str]) -> list[str]:
    """An entry for each (Debian repository format, "Packages" indices)."""
    found: list[str] = []
    for name, digest in digests.items():
        told = commands.run(["dpkg-deb", "-f", str(folder / name)], timeout=30).output.strip()
        size = (folder / name).stat().st_size
        found.append(f"{told}\nFilename: ./{name}\nSize: {size}\nSHA256: {digest}\n\n")
    return found
