"""Where programs come from, ready made: a mirror that is named, else the projects' releases.

Nothing is taken without its SHA-256. It is fetched from where the file is: over https from the
projects' own hosts, while a mirror's keeper is trusted with it.
"""

from __future__ import annotations

import os
import posixpath
import queue
import shutil
import tarfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bazaar.cluster.binaries.parts import KUBERNETES, Part, Release
from bazaar.errors import MissingError, UsageError
from bazaar.host import downloads, go_build

Progress = Callable[[str], None]
VARIABLE = "BAZAAR_CLUSTER_MIRROR"
PATIENCE = 5.0  # seconds to find out whether releases can be reached


def mirror() -> str:
    """The address of the mirror that is named, an URL; "" when there is none.

    Raises UsageError when it is neither an URL nor a folder.
    """
    chosen = os.environ.get(VARIABLE, "")
    if not chosen or chosen.startswith(("https://", "http://")):
        return chosen.rstrip("/")
    folder = Path(chosen).absolute()
    if not folder.is_dir():
        raise UsageError(
            f"{VARIABLE}={chosen} is neither an http(s) address nor a folder here",
            hint="set it right, or unset it",
        )
    return folder.as_uri()


def reachable(
    address: str = f"{KUBERNETES}/release/stable.txt", patience: float = PATIENCE
) -> bool:
    """Whether releases can be had: one question, given up after ``patience`` seconds."""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=patience):  # noqa: S310
                answers.put(True)
        except OSError as error:
            answers.put(hasattr(error, "code"))  # even a refusal is an answer
        except ValueError:
            answers.put(False)

    # Looking up a name knows no time limit, so it is done beside.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=patience)
    except queue.Empty:
        return False


def download(part: Part, base: str, folder: Path, progress: Progress) -> None:
    """All programs of a part from below the address ``base`` into ``folder``.

    Raises MissingError when they cannot be had, ChecksumError when one is not what it should be.
    """
    for release in part.releases:
        _download(part, release, base, folder, progress)


def _download(part: Part, release: Release, base: str, folder: Path, progress: Progress) -> None:
    arch = go_build.architecture()
    path, checksums = (text.format(arch=arch) for text in (release.path, release.checksums))
    name = posixpath.basename(path)
    wanted = downloads.checksum(f"{base}/{checksums}", name)
    file = folder / f".{name}"
    downloads.fetch(f"{base}/{path}", file, wanted, progress, what=f"{part.title}: {name}")
    for program, member in release.members.items():
        if not member:
            file.rename(folder / program)
        else:
            _extract(file, member.format(arch=arch), folder / program)
    file.unlink(missing_ok=True)


def _extract(archive: Path, member: str, target: Path) -> None:
    """Write one regular file of a tar archive; nothing else of it is looked at."""
    try:
        with tarfile.open(archive) as opened:
            for entry in opened:
                if posixpath.normpath(entry.name) == member and entry.isfile():
                    content = opened.extractfile(entry)
                    assert content is not None
                    with content, target.open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 20)
                    return
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MissingError(f"{archive.name[1:]} cannot be unpacked: {error}") from error
    raise MissingError(f"{archive.name[1:]} holds no {member}")
