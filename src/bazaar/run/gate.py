"""Holds a container back at the last moment, until what is done beside its start is done.

The engine runs the runtime specification's `prestart` hook when the sandbox is made and before
anything runs in it (and before gVisor reads the addresses of its network). Ours waits for a
word on a FIFO, so that a network is made while a kernel boots. Killed with its runner, the
FIFO ends without a word, and the hook and the start fail.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path

from bazaar.typed import Any

_NAME = "gate"
_PATIENCE = 60  # seconds the engine waits for the hook
_SCRIPT = 'read -r word <"$0" && [ "$word" = open ]'


def make(folder: Path) -> dict[str, Any]:
    """Make the gate of a container's directory; the `hooks` of its config.json."""
    gate = folder / _NAME
    os.mkfifo(gate, 0o600)
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", _SCRIPT, str(gate)],
        "timeout": _PATIENCE,
    }
    return {"prestart": [hook]}


@contextlib.contextmanager
def opened_by(folder: Path, work: Callable[[], None]) -> Generator[Callable[[], None]]:
    """What to do while the engine starts: ``work``, and then let the container through.

    Where ``work`` raises, the start fails, too. The gate is ours until the engine has ended.
    """
    # Both ways: to open it waits for nobody, and the word stays until the hook reads it.
    end = os.open(folder / _NAME, os.O_RDWR | os.O_CLOEXEC)

    def meanwhile() -> None:
        try:
            work()
        except BaseException:
            os.write(end, b"shut\n")
            raise
        os.write(end, b"open\n")

    try:
        yield meanwhile
    finally:
        os.close(end)
