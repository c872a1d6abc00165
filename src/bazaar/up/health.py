"""Asking a replica whether it works, the way its service says."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable

from bazaar.model.site import Health

POLL = 0.02  # seconds between questions while a replica starts


def check(health: Health, address: str, port: int) -> str | None:
    """Ask once; None when healthy, else what was wrong."""
    if health.kind == "none":
        return None
    if health.kind == "tcp":
        try:
            socket.create_connection((address, port), timeout=health.timeout).close()
        except OSError as error:
            return f"tcp {address}:{port}: {error.strerror or error}"
        return None
    connection = http.client.HTTPConnection(address, port, timeout=health.timeout)
    with contextlib.closing(connection):
        try:
            connection.request("GET", health.path, headers={"User-Agent": "bazaar-health"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"http {address}:{port}{health.path}: {error}"
    return None if 200 <= status < 400 else f"http {address}:{port}{health.path}: status {status}"


def wait(
    health: Health, address: str, port: int, *, alive: Callable[[], bool], since: float
) -> str | None:
    """Ask until it is healthy, its start period is over or it is no longer ``alive``.

    ``since`` is time.monotonic() at the start. None when healthy, else the last answer.
    """
    while True:
        problem = check(health, address, port)
        if problem is None:
            return None
        if not alive():
            return f"it ended before it was healthy; last: {problem}"
        if time.monotonic() - since > health.start_period:
            return f"not healthy after {health.start_period:g} s; last: {problem}"
        time.sleep(POLL)
