"""The supervisor as a process: a guardian, its child that does the work, a socket to ask it.

The guardian does nothing but start the child again when it is killed: at once, by a fork that
has all loaded, however busy the machine is. Both end when the child is told to stop.
"""

from __future__ import annotations

import http.server
import importlib
import os
import signal
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bazaar.errors import BazaarError, StateError
from bazaar.host import paths
from bazaar.host.files import lock
from bazaar.spec.resolved import from_json
from bazaar.up.rpc import Emit, Server
from bazaar.up.supervisor import Supervisor

TICK = 0.2  # seconds
LARGEST_LOG = 1 << 20  # bytes; then it begins anew, one older log is kept
FIRST_PAUSE = 0.05  # seconds before a supervisor that ended is started again, then doubled
LONGEST_PAUSE = {"killed": 1.0, "failed": 10.0}  # it is not its fault when somebody kills it
RAN_WELL = 10.0  # seconds after which the pause begins anew
# What a supervisor works with; the guardian has it, so that none has to load it once more.
MODULES = (
    "run.containers",
    "run.images",
    "shield.door",
    "shield.guard",
    "site.balance",
    "site.names",
    "site.network",
    "trace.pinned",
    "trace.show",
    "up.rollout",
    "up.status",
)


def socket_path(bazaar: str) -> Path:
    """Where the supervisor answers."""
    return paths.bazaar(bazaar) / "supervisor.sock"


def guard(bazaar: str) -> int:
    """Run the supervisor, and start it again whenever it is killed; 0 when told to stop."""
    for module in MODULES:
        importlib.import_module(f"bazaar.{module}")
    pause = FIRST_PAUSE
    ending = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    # Waited for rather than handled: no signal can then go to a child that is gone.
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    while True:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
                code = supervise(bazaar)
            finally:
                sys.stderr.flush()
                os._exit(code)
        status = _tend(child, ending)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return 0
        _log(f"the supervisor ended ({status}), starting it again")
        pause = next_pause(pause, time.monotonic() - began, killed=os.WIFSIGNALED(status))
        time.sleep(pause)


def next_pause(last: float, ran: float, *, killed: bool) -> float:
    """Seconds until a supervisor that ran for so many seconds is started again."""
    if ran > RAN_WELL:
        return FIRST_PAUSE
    return min(last * 2, LONGEST_PAUSE["killed" if killed else "failed"])


def _tend(child: int, ending: set[signal.Signals]) -> int:
    """Pass on what is to end us until the child has ended; its wait status."""
    while True:
        number = signal.sigwait(ending)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if number != signal.SIGCHLD:
            os.kill(child, number)


def supervise(bazaar: str) -> int:
    """The work itself, until SIGTERM, SIGINT or a call of `stop`."""
    folder = paths.bazaar(bazaar)
    supervisor = Supervisor(bazaar)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    with lock(folder / "supervisor.lock", "supervisor"):
        # Before it answers: whoever asks is told of every replica that runs.
        known = _load(supervisor)
        server = Server(socket_path(bazaar), _methods(supervisor, stop))
        server.start()
        metrics = _serve_metrics(supervisor, folder / "metrics.sock")
        if known:
            threading.Thread(target=_resume, args=(supervisor,), daemon=True).start()
        try:
            _loop(supervisor, stop, folder / "supervisor.log")
        finally:
            server.close()
            metrics.shutdown()
            (folder / "metrics.sock").unlink(missing_ok=True)
            supervisor.release()
    return 0


def _loop(supervisor: Supervisor, stop: threading.Event, log: Path) -> None:
    ticks = 0
    while not stop.wait(TICK):
        ticks += 1
        try:
            supervisor.tick()
            if ticks % 5 == 0:
                supervisor.repair()
        except BazaarError as error:
            _log(str(error))
        if ticks % 300 == 0:
            rotate(log)


def _load(supervisor: Supervisor) -> bool:
    try:
        if not supervisor.load():
            return False
    except StateError as error:
        # Half a file: what runs goes on, and the next `up` says anew what is wanted.
        _log(str(error))
        return False
    supervisor.adopt()
    return True


def _resume(supervisor: Supervisor) -> None:
    try:
        for problem in supervisor.resume():
            _log(problem)
    except BazaarError as error:
        _log(str(error))


def _methods(supervisor: Supervisor, stop: threading.Event) -> dict[str, Any]:
    from bazaar.up import status

    def ping(parameters: dict[str, Any], emit: Emit) -> Any:
        return {"pid": os.getpid(), "guardian": os.getppid(), "ready": supervisor.state == "ready"}

    def apply(parameters: dict[str, Any], emit: Emit) -> Any:
        wanted = from_json(parameters["wanted"])
        return supervisor.apply(wanted, parameters["secrets"], emit)

    def build(parameters: dict[str, Any], emit: Emit) -> Any:
        return status.build(supervisor)

    def pause(parameters: dict[str, Any], emit: Emit) -> Any:
        supervisor.observers.pause(float(parameters["seconds"]))
        return {}

    def end(parameters: dict[str, Any], emit: Emit) -> Any:
        stop.set()
        return {}

    return {"ping": ping, "apply": apply, "status": build, "pause": pause, "stop": end}


def _serve_metrics(supervisor: Supervisor, path: Path) -> socketserver.BaseServer:
    """`GET /metrics` in Prometheus' text format, on a socket of the owner alone."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            from bazaar.up import metrics

            if self.path != "/metrics":
                self.send_error(404)
                return
            text = metrics.render(supervisor)
            self.send_response(200)
            self.send_header("Content-Type", metrics.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def address_string(self) -> str:
            return "local"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server = socketserver.ThreadingUnixStreamServer(
            f"/proc/self/fd/{folder}/{path.name}", Handler
        )
    finally:
        os.umask(mask)
        os.close(folder)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def rotate(log: Path) -> None:
    """Keep the log from filling the disk; the file stays open, so it is emptied in place."""
    try:
        if log.stat().st_size < LARGEST_LOG:
            return
        log.with_suffix(".log.1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
    except FileNotFoundError:
        return


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201
