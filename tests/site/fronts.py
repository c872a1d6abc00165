"""One front of the test's own ground, served by the real balance."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import replace

from bazaar.model.site import Backend, Front, Health
from bazaar.site import balance
from tests.site.conftest import Ground, eventually

HEALTH = Health("http", "/", interval=0.5, timeout=1.0)


def front(ground: Ground, *backends: Backend, **more: object) -> Front:
    given = Front("web", ground.address(0, 10), 80, health=HEALTH, backends=backends)
    return replace(given, **more)  # type: ignore[arg-type]


def healthy(ground: Ground) -> set[str]:
    return {one.id for one in balance.status(ground.bazaar).get("web", []) if one.healthy}


def serve(ground: Ground, *backends: Backend, **more: object) -> Front:
    """Apply, and wait until all are healthy."""
    one = front(ground, *backends, **more)
    balance.apply(ground.bazaar, [one])
    eventually(lambda: healthy(ground) >= {backend.id for backend in backends})
    return one


def get(url: str, **more: str) -> str:
    request = urllib.request.Request(url, headers=more)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode().strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
