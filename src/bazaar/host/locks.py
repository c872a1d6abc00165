"""Locks that wait: two builds of one thing become one build and one look into the cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from bazaar.host import paths

# How a folder looks that goes while it is made: it is there, and then it is not.
_GONE = (FileNotFoundError, FileExistsError)


@contextlib.contextmanager
def waiting(path: Path) -> Generator[None]:
    """Hold ``path`` exclusively; waits for whoever has it. Gone with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def of_machine(name: str) -> Generator[None]:
    """Wait for a lock of this machine's, shared whatever the state folder is, and hold it.

    Its file is gone when nobody holds it.
    """
    path = paths.locks() / f"{name}.lock"
    descriptor = _current(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it looks again
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # only where it is empty


def _current(path: Path) -> int:
    """A descriptor of the file that has this name now, locked."""
    while True:
        with contextlib.ExitStack() as opened, contextlib.suppress(*_GONE):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Its last holder may have taken the name away; then another may have it by now.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                opened.pop_all()
                return descriptor
