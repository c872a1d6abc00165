"""Files of the web, or of a folder by a file: address, taken only with their checksum."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from bazaar.errors import ChecksumError, MissingError
from bazaar.host import files

Progress = Callable[[str], None]
LARGEST = 500 << 20  # bytes of one file
_ALGORITHMS = {64: "sha256", 128: "sha512"}  # by the length of the digest in hexadecimal
_LARGEST_TEXT = 1 << 20


def checksum(source: str, name: str, *, timeout: float = 5.0) -> str:
    """The digest that the list at ``source`` has for the file ``name``, in hexadecimal.

    A list is lines of a digest and a name, or one digest alone. Raises MissingError when it
    cannot be had, ChecksumError when it holds none.
    """
    with _answer(source, timeout) as answer:
        text: str = answer.read(_LARGEST_TEXT).decode(errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for words in lines:
        of_file = len(words) == 2 and words[1].lstrip("*").rpartition("/")[2] == name
        alone = len(words) == 1 and len(lines) == 1
        if (of_file or alone) and re.fullmatch(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{128}", words[0]):
            return words[0].lower()
    raise ChecksumError(f"{source} holds no checksum of {name}")


def fetch(
    source: str, target: Path, wanted: str, progress: Progress, *, what: str, timeout: float = 30.0
) -> None:
    """Write what is at ``source`` to ``target``, which must have the digest ``wanted``.

    ``timeout`` is how long the other side may be silent, in seconds. Raises MissingError when it
    cannot be had and ChecksumError when it is something else; ``target`` is gone then.
    """
    try:
        digest = _copy(source, target, _ALGORITHMS[len(wanted)], progress, what, timeout)
        if digest != wanted:
            raise ChecksumError(
                f"{what}: {source} does not have the checksum published with it: "
                f"{wanted[:16]}… is wanted, it has {digest[:16]}…",
                hint="it was changed or damaged: ask whoever keeps it, or use another source",
            )
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy(
    source: str, target: Path, algorithm: str, progress: Progress, what: str, timeout: float
) -> str:
    digest, size, told = hashlib.new(algorithm), 0, 0.0
    with _answer(source, timeout) as answer, _writable(target) as write:
        length = answer.headers.get("Content-Length")
        while chunk := answer.read(1 << 20):
            size += len(chunk)
            if size > LARGEST:
                raise MissingError(f"{what}: {source} is larger than {LARGEST >> 20} MB")
            digest.update(chunk)
            write(chunk)
            if time.monotonic() - told > 0.2:
                progress(f"{what}: downloading, {size >> 20} MB")
                told = time.monotonic()
        if length and size < int(length):
            raise MissingError(f"{what}: {source} was cut short after {size} of {length} bytes")
    return digest.hexdigest()


@contextlib.contextmanager
def _answer(source: str, timeout: float) -> Generator[Any]:
    """What is at ``source``, open for reading; whatever goes wrong with it is a MissingError."""
    try:
        with urllib.request.urlopen(source, timeout=timeout) as answer:  # noqa: S310
            yield answer
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise MissingError(f"{source} cannot be had: {reason}") from error


@contextlib.contextmanager
def _writable(target: Path) -> Generator[Callable[[bytes], None]]:
    """Writes to ``target``; what goes wrong with that is a StateError."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        with files.writing(target):
            while view:
                view = view[file.write(view) :]

    with target.open("wb", buffering=0) as file:
        yield write
