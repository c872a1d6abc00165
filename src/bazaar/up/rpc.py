"""Calls between the command line and a supervisor: JSON lines over a Unix socket.

A request is one line ``{"method", "parameters"}``. The answer is any number of
``{"event": …}`` lines and then one ``{"result": …}`` or ``{"error": {"message", "hint"}}``.
Only the socket's owner and root are served (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from bazaar.errors import BazaarError, StateError

Emit = Callable[[Any], None]
Method = Callable[[dict[str, Any], Emit], Any]
LARGEST_REQUEST = 8 << 20  # bytes; a description with its files inside


@contextlib.contextmanager
def _short_path(path: Path) -> Generator[str]:
    """A name for ``path`` that fits sockaddr_un's 108 bytes wherever the state folder is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Server:
    """Serves methods on a socket, one thread a connection, until closed."""

    def __init__(self, path: Path, methods: dict[str, Method]) -> None:
        self.path = path
        self.methods = methods
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        with _short_path(path) as name:
            mask = os.umask(0o177)
            try:
                self._socket.bind(name)
            finally:
                os.umask(mask)
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._accept, name="rpc", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening and take the socket file away."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:

            def send(line: dict[str, Any]) -> None:
                # A client that went away does not end what it asked for. Nothing is held back
                # here, which closing would try to send once more.
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps(line).encode() + b"\n")

            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, _ = struct.unpack("3i", credentials)
            if user not in (0, os.geteuid()):
                send({"error": {"message": "this bazaar belongs to another user"}})
                return
            try:
                request: dict[str, Any] = json.loads(stream.readline(LARGEST_REQUEST))
                method = self.methods[request["method"]]
            except (ValueError, KeyError, TypeError, OSError):
                send({"error": {"message": "the supervisor does not know this request"}})
                return
            try:
                send(
                    {
                        "result": method(
                            request.get("parameters") or {}, lambda e: send({"event": e})
                        )
                    }
                )
            except BazaarError as error:
                send({"error": {"message": error.message, "hint": error.hint}})
            except Exception as error:
                send({"error": {"message": f"the supervisor failed: {error!r}"}})
                raise


def call(
    path: Path,
    method: str,
    parameters: dict[str, Any] | None = None,
    on_event: Emit | None = None,
    timeout: float | None = 30,
) -> Any:
    """Call one method of the supervisor at ``path``; events come while it works.

    Raises ConnectionError when none answers, BazaarError with its message when it refuses.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout)
    with connection:
        try:
            with _short_path(path) as name:
                connection.connect(name)
        except FileNotFoundError as error:
            raise ConnectionRefusedError(str(path)) from error
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps({"method": method, "parameters": parameters or {}}).encode())
            stream.write(b"\n")
            stream.flush()
            for line in stream:
                answer = json.loads(line)
                if "event" in answer:
                    if on_event:
                        on_event(answer["event"])
                elif "error" in answer:
                    raise StateError(answer["error"]["message"], hint=answer["error"].get("hint"))
                else:
                    return answer["result"]
    raise ConnectionResetError(f"the supervisor at {path} ended in the middle of '{method}'")
