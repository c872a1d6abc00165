"""The supervisor as a process, `guardian`'s child: it does the work, and has a socket to ask it."""

from __future__ import annotations

import http.server
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
ENDING = (signal.SIGTERM, signal.SIGINT)
LARGEST_LOG = 1 << 20  # bytes; then it begins anew, one older log is kept


def socket_path(bazaar: str) -> Path:
    """Where the supervisor answers."""
    return paths.bazaar(bazaar) / "supervisor.sock"


def supervise(bazaar: str, guardian: int) -> int:
    """The work itself, until SIGTERM, SIGINT or a call of `stop`."""
    folder = paths.bazaar(bazaar)
    supervisor = Supervisor(bazaar)
    stop = threading.Event()
    for number in ENDING:
        signal.signal(number, lambda number, frame: stop.set())
    # Only now: what came since the guardian's fork was kept back for these handlers.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ENDING, signal.SIGCHLD})
    with lock(folder / "supervisor.lock", "supervisor"):
        # Before it answers: whoever asks is told of every replica that runs.
        known = _load(supervisor)
        server = Server(socket_path(bazaar), _methods(supervisor, stop, guardian))
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


def _loop(supervisor: Supervisor, stop: threading.Event, file: Path) -> None:
    ticks = 0
    while not stop.wait(TICK):
        ticks += 1
        try:
            supervisor.tick()
            if ticks % 5 == 0:
                supervisor.repair()
            if ticks % 300 == 0:
                rotate(file)
        except (BazaarError, OSError) as error:
            log(str(error))


def _load(supervisor: Supervisor) -> bool:
    try:
        if not supervisor.load():
            return False
    except StateError as error:
        # Half a file: what runs goes on, and the next `up` says anew what is wanted.
        log(str(error))
        return False
    supervisor.adopt()
    return True


def _resume(supervisor: Supervisor) -> None:
    try:
        for problem in supervisor.resume():
            log(problem)
    except BazaarError as error:
        log(str(error))


def _methods(supervisor: Supervisor, stop: threading.Event, guardian: int) -> dict[str, Any]:
    from bazaar.up import status

    def ping(parameters: dict[str, Any], emit: Emit) -> Any:
        return {
            "pid": os.getpid(),
            "guarded": os.getppid() == guardian,
            "ready": supervisor.state == "ready",
        }

    def apply(parameters: dict[str, Any], emit: Emit) -> Any:
        wanted = from_json(parameters["wanted"])
        clusters = parameters.get("clusters", {})
        return supervisor.apply(wanted, parameters["secrets"], clusters, emit)

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


def rotate(file: Path) -> None:
    """Keep the log from filling the disk; the file stays open, so it is emptied in place."""
    try:
        if file.stat().st_size < LARGEST_LOG:
            return
        file.with_suffix(".log.1").write_bytes(file.read_bytes())
        os.truncate(file, 0)
    except FileNotFoundError:
        return


def log(text: str) -> None:
    """One line, or more, of the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201
