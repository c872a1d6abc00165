"""The process that holds a container's published ports, and forwards what arrives there.

It is a process of its own, as docker's proxy is: a port is held by a socket that `ss` shows, no
address of the host is special, both engines are reached alike, and nothing is left in the kernel
that somebody would have to take back. It watches the container's process and ends with it,
whoever else was killed. It is started as ``python -S`` and imports as little as it can.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import sys
import time
from pathlib import Path

from bazaar.host import paths, processes
from bazaar.run import launch, records
from bazaar.run.relay import Relay

_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from bazaar.run.forwarder import main; main(*sys.argv[2:])"
)
_END = 2.0  # seconds it may take to end after its container


class Forwarder:
    """The starter's side. ``line`` tells the process the address, and when nobody is there."""

    def __init__(self, container: str, listeners: list[tuple[socket.socket, int]]) -> None:
        """Start the process; it takes the listeners over, each with the container's port.

        Call it before there are threads, and before this process becomes a subreaper.
        """
        self.line, other = socket.socketpair()
        with other:
            _start(container, other, listeners)
        for listener, _ in listeners:
            listener.close()

    def to(self, address: str) -> None:
        """The container has this address; what waited at the ports is forwarded when it runs."""
        self.line.send(address.encode())

    def release(self) -> None:
        """Leave it to itself: it ends with the container, and at once when there is none."""
        self.line.close()

    def finish(self) -> None:
        """The container has ended, or will not be: wait until its ports are free again."""
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_WR)
            self.line.settimeout(_END)
            self.line.recv(1)
        self.line.close()


def _start(container: str, line: socket.socket, listeners: list[tuple[socket.socket, int]]) -> None:
    """fork twice and exec: it is nobody's child, and belongs to no terminal."""
    kept = [line, *(listener for listener, _ in listeners)]
    words = [str(line.fileno()), *(f"{one.fileno()}:{port}" for one, port in listeners)]
    source = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-I", "-S", "-c", _MAIN, source, container, *words]
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            for one in kept:
                os.set_inheritable(one.fileno(), True)
            environment = {"PATH": os.environ.get("PATH", ""), "BAZAAR_STATE": str(paths.state())}
            os.execve(command[0], command, environment)  # noqa: S606 - no shell is what is wanted
    finally:
        os._exit(0)


def main(container: str, line: str, *ports: str) -> None:
    """Forward ``ports`` (descriptor:port inside) until the container ends."""
    Path("/proc/self/comm").write_text("bazaar-forward")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pairs = [word.split(":") for word in ports]
    listeners = [(socket.socket(fileno=int(number)), int(port)) for number, port in pairs]
    runner = socket.socket(fileno=int(line))
    address = runner.recv(64).decode()
    if not address:
        return
    ended = _running(paths.containers() / container, runner)
    if ended is not None:
        Relay(address, listeners).run(ended)


def _running(place: Path, runner: socket.socket) -> int | None:
    """Wait until the container runs; a descriptor that tells its end, None when it never will."""
    poll = select.poll()
    poll.register(runner, select.POLLIN)
    while True:
        left = bool(poll.poll(0))  # the runner has no more to say: it went
        identity = records.process(place)
        if identity is not None:
            return processes.pidfd(identity)
        about = launch.load(place, "container.json") if left else None
        if left and not (about and records.same_boot(about) and records.creating(place, about)):
            return None
        time.sleep(0.01)
