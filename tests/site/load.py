"""Clients that ask without pause and write down what they got."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Load:
    """Several clients, each asking one request after the other."""

    address: str
    port: int = 80
    clients: int = 6
    keep: bool = True  # connections are kept between requests
    answers: Counter[str] = field(default_factory=Counter[str])
    failures: list[tuple[float, float, str]] = field(default_factory=list)  # begin, end, what
    took: list[tuple[float, float]] = field(default_factory=list)  # begin, seconds

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def failures_begun_after(self, moment: float) -> list[tuple[float, float, str]]:
        return [one for one in self.failures if one[0] >= moment]

    def longest(self, begin: float, end: float) -> list[float]:
        """The longest times of answered requests that began in a span, longest first."""
        spans = [seconds for at, seconds in self.took if begin <= at <= end]
        return sorted(spans, reverse=True)[:10] or [0.0]

    def _work(self) -> None:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=20)
        while not self._stop.is_set():
            begin = time.monotonic()
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read().decode().strip()
                if response.status != 200:
                    raise OSError(f"status {response.status}")
                self.answers[body] += 1
                self.took.append((begin, time.monotonic() - begin))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((begin, time.monotonic(), repr(error)))
                connection.close()
            if not self.keep:
                connection.close()
        connection.close()
