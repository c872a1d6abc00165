"""Files written so that a crash leaves the old content or the new, never a half."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from bazaar.errors import LockedError, StateError


def write_atomic(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``content``: temporary file, fsync, rename, fsync of the folder.

    Raises StateError when that cannot be; the old content is there still.
    """
    data = content.encode() if isinstance(content, str) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data, mode)


@contextlib.contextmanager
def writing(path: Path) -> Generator[None]:
    """What goes wrong with writing ``path`` is a StateError, and says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StateError(
            f"{path}: cannot be written: {error.strerror}",
            hint=f"{'free space' if full else 'make it writable'} there, and run the same again",
        ) from error


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Write ``value`` as JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode)


def read_json(path: Path) -> Any:
    """The JSON in ``path``; None when there is no file.

    Raises StateError when the file is cut short or is no JSON.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise StateError(
            f"{path}: unreadable state: {error}",
            hint="`bazaar down` clears it away; `bazaar up` then starts afresh",
        ) from error


@contextlib.contextmanager
def lock(path: Path, purpose: str) -> Generator[int]:
    """Hold an exclusive lock on ``path``, or raise LockedError that names the holder.

    Gives the descriptor that holds it: a child that is forked meanwhile closes it.
    """
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} ({purpose})\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file that has this name now, locked: a holder may remove the file."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise LockedError(
                f"{path.stem} is being changed by {holder or 'another process'}",
                hint="wait until it is done, and run the same again",
            ) from None
        except FileNotFoundError:
            pass  # removed between our opening and our look: again
        os.close(descriptor)


def digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
