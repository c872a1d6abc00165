"""Well-behaved HTTP clients that count every answer and every failure while a drill goes on."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Self


@dataclass(slots=True)
class Tally:
    """What clients saw: when each request ended, how long it took, and whether it failed."""

    requests: list[tuple[float, float, bool]] = field(
        default_factory=list[tuple[float, float, bool]]
    )

    @property
    def failed(self) -> int:
        """Requests without an answer, or with one that is an error."""
        return sum(not fine for _, _, fine in self.requests)

    @property
    def worst(self) -> float:
        """The longest time, in seconds, in which no request of these clients succeeded."""
        moments = sorted(end for end, _, fine in self.requests if fine)
        return max((b - a for a, b in itertools.pairwise(moments)), default=0.0)


class Clients:
    """``count`` threads asking ``targets`` (address, port) in turn, a connection a request."""

    def __init__(
        self, targets: list[tuple[str, int]], *, count: int = 4, timeout: float = 5.0
    ) -> None:
        self.tally = Tally()
        self._targets = targets
        self._timeout = timeout
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True)
            for number in range(count)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(self._timeout + 1)

    def _ask(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            address, port = self._targets[turn % len(self._targets)]
            turn += 1
            began = time.monotonic()
            fine = ask(address, port, self._timeout)
            ended = time.monotonic()
            with self._lock:
                self.tally.requests.append((ended, ended - began, fine))
            # A person's pace, not a flood: the machine is to show its faults, not its limits.
            self._stop.wait(0.005)


def ask(address: str, port: int, timeout: float) -> bool:
    """One request; whether it was answered in order."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return response.status < 400
