"""A container's log: one line an entry, in the format Kubernetes' CRI gives it.

``2026-11-22T20:53:42.536922198Z stdout F the line``; P instead of F marks a part of a line
that goes on in the next entry. The file is turned over at a size, and one old one is kept, so
that a container can fill no disk.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bazaar.model.record import record

LARGEST = 10 << 20  # bytes of one file; there are at most two
LONGEST = 16 << 10  # bytes of one entry; a longer line becomes several
NAME = "log"
OLD = "log.1"


@record
class LogLine:
    """One entry: when it came, on which stream, its bytes, and whether its line ends with it."""

    time: float  # seconds since the epoch
    stream: str  # stdout | stderr
    text: bytes
    ends: bool = True


class Writer:
    """Turns what a container writes into entries of its log file."""

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self.folder = folder
        self.largest = largest
        self.rest: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        self.descriptor = os.open(
            self.folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self.size = os.fstat(self.descriptor).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Take what came on ``stream``; an unfinished line waits for its end."""
        now = stamp(time.time_ns())
        lines = (self.rest.pop(stream, b"") + data).split(b"\n")
        unfinished = lines.pop()
        entries: list[bytes] = []
        for line in lines:
            while len(line) > LONGEST:
                entries.append(b"%s %s P %s\n" % (now, stream.encode(), line[:LONGEST]))
                line = line[LONGEST:]
            entries.append(b"%s %s F %s\n" % (now, stream.encode(), line))
        while len(unfinished) > LONGEST:
            entries.append(b"%s %s P %s\n" % (now, stream.encode(), unfinished[:LONGEST]))
            unfinished = unfinished[LONGEST:]
        if unfinished:
            self.rest[stream] = unfinished
        for entry in entries:
            self._put(entry)

    def _put(self, entry: bytes) -> None:
        if self.size and self.size + len(entry) > self.largest:
            os.close(self.descriptor)
            (self.folder / NAME).replace(self.folder / OLD)
            self._open()
        try:
            os.write(self.descriptor, entry)
        except OSError:
            return  # a full disk loses log lines, never the container
        self.size += len(entry)

    def close(self) -> None:
        """Write what is unfinished, as lines without an end."""
        for stream, text in self.rest.items():
            self._put(b"%s %s P %s\n" % (stamp(time.time_ns()), stream.encode(), text))
        self.rest.clear()
        os.close(self.descriptor)


def stamp(nanoseconds: int) -> bytes:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


def parse(line: bytes) -> LogLine | None:
    """One entry without its newline; None when it is none (cut short by a crash)."""
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[2] not in (b"F", b"P") or fields[1] not in (b"stdout", b"stderr"):
        return None
    try:
        whole, _, fraction = fields[0].decode("ascii").removesuffix("Z").partition(".")
        moment = time.strptime(whole + " UTC", "%Y-%m-%dT%H:%M:%S %Z")
        import calendar

        when = calendar.timegm(moment) + (
            int(fraction) / 10 ** len(fraction) if fraction.isdecimal() else 0
        )
    except (ValueError, OverflowError):
        return None
    return LogLine(when, fields[1].decode(), fields[3], fields[2] == b"F")


def read(
    folder: Path, *, since: float | None = None, tail: int | None = None, ended: int | None = None
) -> Iterator[LogLine]:
    """The entries kept in ``folder``, oldest first.

    ``since`` is in seconds since the epoch, ``tail`` how many of the last entries. With
    ``ended``, a descriptor that becomes readable when the container has ended, it waits for
    new entries until then.
    """
    name = folder / NAME
    file = name.open("rb") if name.exists() else None
    old = folder / OLD
    previous = old.read_bytes().split(b"\n") if old.exists() else []
    first: Iterator[bytes] = iter([*previous, *(_complete(file) if file else [])])
    entries = (
        entry for entry in map(parse, first) if entry and (since is None or entry.time >= since)
    )
    yield from entries if tail is None else (deque(entries, maxlen=tail) if tail else ())
    if ended is not None:
        yield from _follow(name, file, ended)


def _complete(file: BinaryIO) -> list[bytes]:
    """Whole lines from where ``file`` stands; it is left before an unfinished one."""
    data = file.read()
    end = data.rfind(b"\n") + 1
    file.seek(end - len(data), os.SEEK_CUR)
    return data[:end].split(b"\n")[:-1]  # splitlines() would part at \r, too


def _follow(name: Path, file: BinaryIO | None, ended: int) -> Iterator[LogLine]:
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    while True:
        over = bool(poll.poll(100))
        while True:
            if file is None and name.exists():
                file = name.open("rb")
            if file is None:
                break
            yield from filter(None, map(parse, _complete(file)))
            try:
                if name.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    break
            except FileNotFoundError:
                break
            # Turned over: whatever came before that is in the old file, which we still hold.
            yield from filter(None, map(parse, _complete(file)))
            file = name.open("rb")
        if over:
            return
