"""Copying bytes between clients of the host's ports and a container: one loop, one thread."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time

_CHUNK = 256 << 10  # bytes read at once, and held at most for each direction
_RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) says RST
_READ = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_WITHOUT_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Side:
    """One end of a connection, and what is still to be sent to it."""

    __slots__ = ("connected", "ended", "mask", "other", "pending", "shut", "socket")

    def __init__(self, own: socket.socket, *, connected: bool) -> None:
        own.setblocking(False)
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.socket = own
        self.connected = connected
        self.pending = memoryview(b"")
        self.ended = False  # it will send no more
        self.shut = False  # it has been told that the other will not
        self.mask = 0  # what the loop waits for
        self.other: _Side = self


class Relay:
    """Forwards what arrives at ``listeners`` to the port of ``address`` that belongs to each."""

    def __init__(self, address: str, listeners: list[tuple[socket.socket, int]]) -> None:
        self.address = address
        self.epoll = select.epoll()
        self.sides: dict[int, _Side] = {}
        self.listeners = {one.fileno(): (one, port) for one, port in listeners}
        for one, _ in listeners:
            one.setblocking(False)
            self.epoll.register(one, select.EPOLLIN)

    def run(self, until: int) -> None:
        """Forward until the descriptor ``until`` becomes readable."""
        self.epoll.register(until, select.EPOLLIN)
        while True:
            for number, event in self.epoll.poll():
                if number == until:
                    return
                if number in self.listeners:
                    self._accept(*self.listeners[number])
                elif (side := self.sides.get(number)) is not None:
                    try:
                        self._serve(side, event)
                    except OSError:
                        self._close(side, reset=True)

    def _accept(self, listener: socket.socket, port: int) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in _WITHOUT_FILES:
                time.sleep(0.05)  # until others have closed theirs
            return
        try:
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            client.close()
            return
        near, far = _Side(client, connected=True), _Side(server, connected=False)
        near.other, far.other = far, near
        self.sides |= {client.fileno(): near, server.fileno(): far}
        code = server.connect_ex((self.address, port))
        if code not in (0, errno.EINPROGRESS):
            self._close(near, reset=True)
            return
        self._watch(near)
        self._watch(far)

    def _serve(self, side: _Side, event: int) -> None:
        if not side.connected:
            if code := side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, "connect")
            side.connected = True
        if event & select.EPOLLOUT:
            self._flush(side)
        if event & _READ and not side.ended and not side.other.pending:
            with contextlib.suppress(BlockingIOError):
                data = side.socket.recv(_CHUNK)
                side.ended = not data
                side.other.pending = memoryview(data)
            self._flush(side.other)
        if side.shut and side.other.shut:
            self._close(side)
            return
        self._watch(side)
        self._watch(side.other)

    def _flush(self, side: _Side) -> None:
        """Send what there is to send, and the end when that was all."""
        if not side.connected:
            return
        if side.pending:
            with contextlib.suppress(BlockingIOError):
                side.pending = side.pending[side.socket.send(side.pending) :]
        if side.other.ended and not side.pending and not side.shut:
            side.socket.shutdown(socket.SHUT_WR)
            side.shut = True

    def _watch(self, side: _Side) -> None:
        mask = 0
        if not side.ended and not side.other.pending:
            mask |= select.EPOLLIN
        if side.pending or not side.connected:
            mask |= select.EPOLLOUT
        if mask == side.mask:
            return
        # Without anything to wait for it is taken out: a hang-up would be told for ever.
        if not side.mask:
            self.epoll.register(side.socket, mask)
        elif not mask:
            self.epoll.unregister(side.socket)
        else:
            self.epoll.modify(side.socket, mask)
        side.mask = mask

    def _close(self, side: _Side, *, reset: bool = False) -> None:
        for one in (side, side.other):
            self.sides.pop(one.socket.fileno(), None)
            if reset:
                with contextlib.suppress(OSError):
                    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.socket.close()
