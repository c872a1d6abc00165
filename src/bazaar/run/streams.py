"""The caller's stdin, stdout and stderr, handed to a container or carried for it.

Pipes, sockets and devices are handed over as they are: nothing stands between. Two kinds are
carried by threads of ours: a terminal, and regular files, because gVisor keeps a position of
its own in a file it is given and would write over what others append to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from bazaar.typed import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

CHUNK = 64 << 10
LINGER = 2.0  # seconds that output may still come after the container's end


def _copy(source: int, sink: int) -> None:
    """Carry everything from one descriptor to the other until either ends."""
    with contextlib.suppress(OSError):  # EIO: the terminal's other end closed; EPIPE
        while data := os.read(source, CHUNK):
            while data:
                data = data[os.write(sink, data) :]


class Streams:
    """What a container gets as descriptors 0 to 2, and the threads that carry for it."""

    def __init__(self, *, stdin: bool, carry_files: bool) -> None:
        self._mine: list[int] = []  # closed once the container has its copies
        self._output: list[threading.Thread] = []
        self._later: list[Callable[[], None]] = []
        self.descriptors = (
            self._input(carry_files) if stdin else self._null(),
            self._out(1, carry_files),
            self._out(2, carry_files),
        )

    def _null(self) -> int:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._mine.append(descriptor)
        return descriptor

    def _input(self, carry_files: bool) -> int:
        if not (carry_files and _regular(0)):
            return 0
        import threading

        read, write = os.pipe2(os.O_CLOEXEC)
        self._mine.append(read)

        def feed() -> None:
            _copy(0, write)
            os.close(write)

        self._later.append(threading.Thread(target=feed, daemon=True).start)
        return read

    def _out(self, number: int, carry_files: bool) -> int:
        if not (carry_files and _regular(number)):
            return number
        read, write = os.pipe2(os.O_CLOEXEC)
        self._mine.append(write)
        import threading

        thread = threading.Thread(target=_copy, args=(read, number), daemon=True)
        self._output.append(thread)
        self._later.append(thread.start)
        return write

    def started(self) -> None:
        """The container has its copies: let ours go, and carry."""
        for descriptor in self._mine:
            os.close(descriptor)
        self._mine.clear()
        # Threads begin only now: before, this process still forks.
        for begin in self._later:
            begin()
        self._later.clear()

    def finish(self) -> None:
        """The container ended: wait until all it wrote is written."""
        self.started()
        for thread in self._output:
            thread.join(LINGER)


def _regular(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class Terminal:
    """A terminal made by the engine, joined to the caller's until the container ends.

    The caller's is raw meanwhile (keys reach the container as they are), its size is passed
    on, and it is as it was afterwards.
    """

    def __init__(self, folder: Path, name: str = "console") -> None:
        import socket

        # A socket's path has at most 107 bytes, for the engine, too; the folder's may have more.
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._folder}/{name}")
        self.path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen(1)
        self._master = -1
        self._saved: list[object] | None = None
        self._thread: threading.Thread | None = None

    def receive(self, timeout: float = 10.0) -> None:
        """Take the terminal the engine hands over, and carry."""
        import array
        import socket
        import struct
        import termios
        import tty

        self._socket.settimeout(timeout)
        connection, _ = self._socket.accept()
        with connection:
            size = array.array("i").itemsize
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(size))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._master = struct.unpack("i", data[:size])[0]
        if self._master < 0:
            raise OSError("the engine handed over no terminal")
        os.set_inheritable(self._master, False)
        self.resize()
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)  # what was typed already is for the container
            signal.signal(signal.SIGWINCH, self._resized)
        import threading

        self._thread = threading.Thread(target=_copy, args=(self._master, 1), daemon=True)
        self._thread.start()
        threading.Thread(target=self._type, daemon=True).start()

    def _type(self) -> None:
        _copy(0, self._master)
        if not os.isatty(0):
            # The end of a piped stdin is the terminal's end-of-file key.
            with contextlib.suppress(OSError):
                os.write(self._master, b"\x04")

    def _resized(self, number: int, frame: FrameType | None) -> None:
        self.resize()

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            size = fcntl.ioctl(1 if os.isatty(1) else 0, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def finish(self) -> None:
        """Write what is left, and make the caller's terminal what it was."""
        if self._thread is not None:
            self._thread.join(LINGER)
        self.close()

    def close(self) -> None:
        """Restore the caller's terminal and let the socket go."""
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None
        self._socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self._folder)
