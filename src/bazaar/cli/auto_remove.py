"""`bazaar run -d --rm`: what takes the container away when it has ended."""

from __future__ import annotations

import sys
from pathlib import Path

_MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from bazaar.cli.auto_remove import remove; remove(sys.argv[2])"
)


def command(container: str) -> tuple[str, ...]:
    """The command that the container's shim runs at last."""
    from bazaar.host import paths

    source = str(Path(__file__).resolve().parents[2])
    state = f"BAZAAR_STATE={paths.state()}"  # a shim has no environment to speak of
    return ("/usr/bin/env", state, sys.executable, "-I", "-S", "-c", _MAIN, source, container)


def remove(container: str) -> None:
    """Remove a container that ended, and its network if it has one."""
    from bazaar.run import containers
    from bazaar.site import run_network

    run_network.disconnect_run(container)
    containers.discard(container, settled=True)
