"""The default network of `bazaar run`, made while its container's engine starts."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.host import namespaces
from bazaar.site.naming import container_namespace
from bazaar.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from bazaar.run.forwarder import Forwarder


class RunNetwork:
    """One container's network: its namespace at first, bare, and the rest when there is time.

    ``before`` is done before the rest; a ``forwarder`` is told the container's address.
    """

    def __init__(
        self, container: str, before: Callable[[], None], forwarder: Forwarder | None
    ) -> None:
        self._container, self._before, self._forwarder = container, before, forwarder
        self._begun = False
        self.namespace = container_namespace(container)

    def begin(self) -> None:
        """Make the namespace. Raises NetworkError."""
        self._begun = True
        namespaces.create_bare(self.namespace)

    def complete(self) -> None:
        """Make the rest. Raises NetworkError."""
        from bazaar.site import run_network

        self._before()
        attachment = run_network.connect_run(self._container, begun=True)
        if self._forwarder is not None:
            self._forwarder.to(attachment.address)

    def remove(self) -> None:
        """Take it away, however far it came; one of this name that is another's stays."""
        if not self._begun:
            return
        from bazaar.site import run_network

        run_network.disconnect_run(self._container)
