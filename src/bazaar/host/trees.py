"""Files and trees on their way to a machine: what differs there, and the tar stream of it."""

from __future__ import annotations

import os
import shlex
import stat
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path, PurePosixPath

from bazaar.errors import UsageError
from bazaar.host import files
from bazaar.model.record import record

_CHUNK = 256 << 10
_LARGE = 4 << 20  # bytes of a file that is worth a session of its own
_MARK = "--names-end--"


@record
class Entry:
    """A file, folder or link: its name below the target's folder, and where it is here."""

    name: str
    path: Path
    mode: int  # as stat(2) has it, the kind included
    size: int  # of a file's content


def entries(source: Path, target: str) -> tuple[str, list[Entry]]:
    """The folder that is written into, and what goes there, folders first.

    Raises UsageError for what cannot be copied.
    """
    if not target.startswith("/"):
        raise UsageError(f"{target!r} is no absolute path")
    try:
        if not source.is_dir():
            place = PurePosixPath(target)
            return str(place.parent), [_entry(place.name, source)]
        found: list[Entry] = []
        for folder, folders, names in os.walk(source, onerror=_raise):
            folders.sort()
            for name in [*folders, *sorted(names)]:
                path = Path(folder, name)
                found.append(_entry(str(path.relative_to(source)), path))
    except OSError as error:
        raise UsageError(f"{error.filename or source}: {error.strerror}") from error
    return target, found


def look(folder: str, wanted: Sequence[Entry]) -> str:
    """The script that tells which of them are in ``folder``: modes, then digests."""
    names = "\n".join(f"./{entry.name}" for entry in wanted)
    return (
        f"cd -- {shlex.quote(folder)} 2>/dev/null || exit 0\n"
        f"names=$(cat <<'{_MARK}'\n{names}\n{_MARK}\n)\n"
        "each() { printf '%s\\n' \"$names\" | tr '\\n' '\\0' | xargs -0 \"$@\" 2>/dev/null; }\n"
        "each stat -c '%f  %n'\n"
        "each sha256sum\n"
        "exit 0"
    )


def differing(wanted: Sequence[Entry], there: str) -> list[Entry]:
    """Those that are not there with this content and mode, by what `look` printed.

    Links are always among them: they cost less than to ask.
    """
    said = set(there.splitlines())

    def same(entry: Entry) -> bool:
        if f"{entry.mode:x}  ./{entry.name}" not in said or stat.S_ISLNK(entry.mode):
            return False
        return stat.S_ISDIR(entry.mode) or f"{files.digest(entry.path)}  ./{entry.name}" in said

    return [entry for entry in wanted if not same(entry)]


def shared_out(wanted: Sequence[Entry], count: int) -> list[list[Entry]]:
    """The entries in parts to be unpacked at the same time; the last one is for when they are.

    Large files are in the others, as evenly as may be; where there are none, there is the last
    alone: folders first, then what lies deepest.
    """
    large = [e for e in wanted if stat.S_ISREG(e.mode) and e.size >= _LARGE and "/" in e.name]
    parts: list[list[Entry]] = [[] for _ in range(min(count, len(large)))]
    for entry in sorted(large, key=lambda entry: -entry.size):
        min(parts, key=lambda part: sum(one.size for one in part)).append(entry)
    taken = {entry.name for entry in large}

    def order(entry: Entry) -> tuple[bool, int]:
        depth = entry.name.count("/")
        return not stat.S_ISDIR(entry.mode), depth if stat.S_ISDIR(entry.mode) else -depth

    return [*parts, sorted((e for e in wanted if e.name not in taken), key=order)]


async def packed(wanted: Sequence[Entry]) -> AsyncIterator[bytes]:
    """The entries as a tar archive, piece by piece; they belong to whoever unpacks it."""
    for entry in wanted:
        head = tarfile.TarInfo(entry.name)
        head.mode = stat.S_IMODE(entry.mode)
        head.mtime = entry.path.lstat().st_mtime_ns // 10**9
        if stat.S_ISDIR(entry.mode):
            head.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(entry.mode):
            head.type, head.linkname = tarfile.SYMTYPE, os.readlink(entry.path)
        else:
            head.size = entry.size
        yield head.tobuf(tarfile.PAX_FORMAT)
        if head.size:
            for piece in _content(entry):
                yield piece
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _raise(error: OSError) -> None:
    raise error


def _entry(name: str, path: Path) -> Entry:
    about = path.lstat()
    if stat.S_IFMT(about.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise UsageError(f"{path} is neither a file, a folder nor a link")
    if "\n" in name:
        raise UsageError(f"{path}: a name with a line break cannot be copied")
    return Entry(name, path, about.st_mode, about.st_size if stat.S_ISREG(about.st_mode) else 0)


def _content(entry: Entry) -> Iterator[bytes]:
    left = entry.size
    try:
        with open(entry.path, "rb") as file:
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise UsageError(f"{entry.path} was cut short while it was copied")
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise UsageError(f"{entry.path}: {error.strerror}") from error
