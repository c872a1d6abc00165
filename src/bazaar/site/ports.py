"""Ports of the host: whether one is free, and if not, who has it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from bazaar.errors import NetworkError

_LISTEN = "0A"  # include/net/tcp_states.h
_BACKLOG = 512
_FADING = 0.3  # seconds


def check_free(address: str, port: int, service: str, own: Collection[int] = ()) -> None:
    """NetworkError, naming the holder, when ``port`` cannot be listened on here.

    What the processes ``own`` hold counts as free: they hand it over.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run that still fade do not count, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and set(_holders(port)) & set(own):
                return
            raise _problem(error, address, port, service) from error


def listen(address: str, port: int, what: str) -> socket.socket:
    """Listen on a port of the host, 0 being any free one; NetworkError, naming the holder.

    ``what`` is published there, for people.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Who forwarded for a container that just ended may hold the port some milliseconds more.
    deadline = time.monotonic() + _FADING
    while True:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _problem(error, address, port, what) from error
            time.sleep(0.02)


def holder(port: int) -> str:
    """The process that listens on a TCP port, for people; empty when it cannot be told."""
    for pid in _holders(port):
        with contextlib.suppress(OSError):
            return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (pid {pid})"
    return ""


def _holders(port: int) -> Iterator[int]:
    """The processes that hold a listening TCP socket of this port."""
    inodes = {
        fields[9]
        for table in ("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6")
        for fields in _rows(table)
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for entry in Path("/proc").iterdir():
        if wanted and entry.name.isdigit():
            with contextlib.suppress(OSError):
                for file in (entry / "fd").iterdir():
                    if os.readlink(file) in wanted:
                        yield int(entry.name)
                        break


def _problem(error: OSError, address: str, port: int, service: str) -> NetworkError:
    place = f"port {port} of {address}"
    if error.errno == errno.EADDRINUSE:
        who = holder(port)
        return NetworkError(
            f"{service} cannot be published: {place} is taken{f' by {who}' if who else ''}",
            hint="publish another port, or stop what has this one",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return NetworkError(
            f"{service} cannot be published: this machine has no address {address}",
            hint="127.0.0.1 is this machine alone, 0.0.0.0 all its addresses",
        )
    return NetworkError(f"{service} cannot be published on {place}: {error.strerror}")


def _rows(table: str) -> list[list[str]]:
    with contextlib.suppress(OSError):
        return [line.split() for line in Path(table).read_text().splitlines()[1:]]
    return []
