"""The process beside each detached container: starts it, keeps its log, records how it ended.

It belongs to nobody: whoever asked for the container may end, be killed and come back. It is
started as ``python -S`` with a container's directory, and imports as little as it can: it stays
in memory as long as the container runs. (conmon, the usual program for this, would cost a
second start of the engine, since it only knows `create` and `start`, and forgets the whole log
when it turns it over.)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from bazaar.errors import BazaarError
from bazaar.host import processes
from bazaar.run import launch, logs

CHUNK = 64 << 10
LINGER = 1.0  # seconds the streams may stay open after the container's end


def main(folder: str, ready: int) -> None:
    """Leave the caller's process group and terminal, and tend the container until it ends.

    What became of the start is written to the descriptor ``ready`` as one JSON object.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    processes.become_subreaper()
    asked = launch.read(Path(folder))
    if asked is None:
        _report(ready, {"error": f"{folder}/launch.json is unreadable", "code": 125})
        return
    _Shim(asked, ready).run()


def _report(ready: int, result: Mapping[str, object]) -> None:
    """Tell whoever asked for the container; if killed meanwhile, they find its record."""
    with contextlib.suppress(BrokenPipeError):
        os.write(ready, json.dumps(result).encode())


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that the wake-up descriptor is written to."""


class _Shim:
    def __init__(self, asked: launch.Launch, ready: int) -> None:
        self.asked = asked
        self.folder = Path(asked.folder)
        self.ready = ready
        self.wake, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)

    def run(self) -> None:
        streams: dict[int, str] = {}
        ends: list[int] = []
        for name in ("stdout", "stderr"):
            read, write = os.pipe2(os.O_CLOEXEC)
            streams[read] = name
            ends.append(write)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        me = processes.identify(os.getpid())
        try:
            pid = launch.start(self.asked, (null, ends[0], ends[1]))
        except (BazaarError, OSError, ValueError) as error:
            self._failed(error, list(streams))
            return
        finally:
            for descriptor in (*ends, null):
                os.close(descriptor)
        container = processes.identify(pid)
        # A container that has already ended is a zombie of ours; its pid is still its own.
        record = {
            "boot": launch.boot_id(),
            "pid": pid,
            "start": container.start if container else 0,
            "shim": me.pid if me else 0,
            "shim_start": me.start if me else 0,
            "started_at": time.time(),
        }
        launch.store(self.folder, "process.json", record)
        _report(self.ready, record)
        os.close(self.ready)
        self._tend(pid, streams)

    def _failed(self, error: Exception, streams: list[int]) -> None:
        launch.settle(self.asked, parent=True)
        said = b""
        for descriptor in streams:
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):
                said += os.read(descriptor, CHUNK)
        message = error.message if isinstance(error, BazaarError) else str(error)
        if "no word" in message and said.strip():
            message = said.decode(errors="replace").strip().splitlines()[-1]
        code = error.exit_code if isinstance(error, BazaarError) else 125
        _report(self.ready, {"error": message, "code": code})

    def _tend(self, pid: int, streams: dict[int, str]) -> None:
        log = logs.Writer(self.folder)
        poll = select.poll()
        for descriptor in (*streams, self.wake):
            poll.register(descriptor, select.POLLIN)
        status: int | None = self._reap(pid)
        deadline = time.monotonic() + LINGER if status is not None else None
        while streams or status is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0:
                break
            for descriptor, _ in poll.poll(None if left is None else left * 1000):
                if descriptor == self.wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake, 512)
                    continue
                data = os.read(descriptor, CHUNK)
                if data:
                    log.write(streams[descriptor], data)
                else:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    del streams[descriptor]
            if status is None:
                status = self._reap(pid)
                if status is not None:
                    deadline = time.monotonic() + LINGER
        log.close()
        code = launch.exit_code(self.asked, status or 0)
        launch.store(self.folder, "exit.json", {"code": code, "finished_at": time.time()})
        launch.settle(self.asked, parent=True)
        if self.asked.poststop:
            # Waited for: whoever waits for the shim finds the container gone.
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.waitpid(launch.spawn([*self.asked.poststop], (null, 2, 2), ()), 0)

    def _reap(self, pid: int) -> int | None:
        """Reap every child that has ended; the container's wait status when it was among them."""
        status = None
        with contextlib.suppress(ChildProcessError):
            while True:
                child, ended = os.waitpid(-1, os.WNOHANG)
                if child == 0:
                    break
                if child == pid:
                    status = ended
        return status


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
