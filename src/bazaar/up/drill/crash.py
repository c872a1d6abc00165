"""Drill: the supervisor is killed; replicas go on, and the next one adopts them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from bazaar.errors import BazaarError, StateError
from bazaar.model.figure import Figure
from bazaar.up import client
from bazaar.up.drill.clients import Clients, failures

PATIENCE = 30.0  # seconds


def measure(bazaar: str, progress: Callable[[str], None]) -> list[Figure]:
    """Seconds from `kill -9` to a supervisor that knows all; requests and replicas lost."""
    before = client.call(bazaar, "status")
    pids = _pids(before)
    targets = [
        (service["address"], service["port"])
        for service in before["services"]
        if service["url"] and service["url"].startswith("http:")
    ]
    killed = int(client.call(bazaar, "ping")["pid"])
    with Clients(targets, count=4 if targets else 0) as clients:
        time.sleep(0.5)
        progress(f"kill -9 {killed}, the supervisor")
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        after = _recovered(bazaar, killed, pids.keys())
        took = time.monotonic() - began
        time.sleep(0.5)
    kept = _pids(after)
    restarted = sum(kept.get(replica) != pid for replica, pid in pids.items())
    failed = [request for request in clients.requests if request.problem]
    return [
        Figure("crash.recovery", round(took, 3), "s", goal="<= 5", holds=took <= 5),
        Figure("crash.restarted", float(restarted), "replicas", goal="0", holds=restarted == 0),
        Figure(
            "crash.lost",
            float(len(failed)),
            "requests",
            goal="0",
            holds=not failed,
            note=f"{len(clients.requests)} requests meanwhile; {failures(failed)}".rstrip("; "),
        ),
    ]


def _pids(status: dict[str, Any]) -> dict[str, int]:
    return {
        row["id"]: row["pid"]
        for service in status["services"]
        for row in service["replicas"]
        if row["healthy"]
    }


def _recovered(bazaar: str, killed: int, replicas: Any) -> dict[str, Any]:
    """The status, once another supervisor sees every replica as healthy as before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            ping = client.call(bazaar, "ping", timeout=5)
            if ping["pid"] != killed and ping["ready"]:
                status = client.call(bazaar, "status", timeout=5)
                if set(replicas) <= _pids(status).keys():
                    return status
        except BazaarError:
            pass
        time.sleep(0.02)
    raise StateError(
        f"bazaar {bazaar}: no supervisor came back within {PATIENCE:g} s",
        hint=f"`bazaar up` starts one; see its log below {bazaar}'s state folder",
    )
