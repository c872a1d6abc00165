"""Well-behaved HTTP clients that count every answer and every failure while a drill goes on."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it began and ended (monotonic seconds), and what went wrong with it."""

    began: float
    ended: float
    problem: str = ""


class Clients:
    """``count`` threads asking ``targets`` (address, port) in turn, a connection a request."""

    def __init__(
        self, targets: list[tuple[str, int]], *, count: int = 4, timeout: float = 5.0
    ) -> None:
        self.requests: list[Request] = []  # that have ended
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
            problem = ask(address, port, self._timeout)
            with self._lock:
                self.requests.append(Request(began, time.monotonic(), problem))
            # A person's pace, not a flood: the machine is to show its faults, not its limits.
            self._stop.wait(0.005)


def failures(requests: Iterable[Request]) -> str:
    """What went wrong, for a figure's note: "2 x HTTP 503"; empty where nothing did."""
    problems = Counter(request.problem for request in requests if request.problem)
    return ", ".join(f"{count} x {problem}" for problem, count in problems.most_common())


def ask(address: str, port: int, timeout: float) -> str:
    """One request; what was wrong with the answer, empty for a good one."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        return f"{address}:{port} {type(error).__name__}: {error}"
    finally:
        connection.close()
    return "" if response.status < 400 else f"{address}:{port} HTTP {response.status}"
