"""The default network of `bazaar run`, made beside what else a container needs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from bazaar.errors import BazaarError
from bazaar.host.background import Background

if TYPE_CHECKING:
    from bazaar.model.site import Attachment


class RunNetwork:
    """One container's network, on its way from the beginning."""

    def __init__(self, container: str, before: Callable[[], None]) -> None:
        self._container, self._before = container, before
        self._address = ""
        self._wired = threading.Event()
        self._work = Background(self._connect)

    def address(self) -> str:
        """The container's address, once its namespace is whole. Raises NetworkError."""
        self._wired.wait()
        if not self._address:
            self._work.result()
        return self._address

    def finish(self) -> None:
        """Wait for the way to the world, too. Raises NetworkError."""
        self._work.result()

    def remove(self) -> None:
        """Take it away, however far it came."""
        from bazaar.site import run_network

        with contextlib.suppress(BazaarError):
            self._work.result()  # it may be on its way still
        run_network.disconnect_run(self._container)

    def _connect(self) -> None:
        from bazaar.site import run_network

        try:
            self._before()
            run_network.connect_run(self._container, wired=self._note)
        finally:
            self._wired.set()

    def _note(self, attachment: Attachment) -> None:
        self._address = attachment.address
        self._wired.set()
