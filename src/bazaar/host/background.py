"""Work that goes on beside the caller's; lighter to import than concurrent.futures."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """One function in a thread of its own, begun at once."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    def wait(self) -> None:
        """Wait for its end, and raise what it raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
