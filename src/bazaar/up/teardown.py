"""Takes a bazaar away, whatever is left of it: every step looks for what is really there."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bazaar.errors import BazaarError
from bazaar.host import paths
from bazaar.model.container import ContainerState
from bazaar.up import guardian

Emit = Callable[[dict[str, Any]], None]
GRACE = 10.0  # seconds between SIGTERM and SIGKILL


def remove(bazaar: str, emit: Emit, *, volumes: bool) -> None:
    """Take everything of a bazaar away; its volumes too when asked.

    Can be interrupted and called again; a step that fails does not keep the others from
    being done, and is raised at the end.
    """
    problems: list[str] = []
    for step in (guardian.end, _remove_drill, remove_observers, _remove_balance):
        _try(problems, lambda step=step: step(bazaar))
    _remove_containers(bazaar, emit, problems)
    _try(problems, lambda: _remove_network(bazaar))
    if not problems:
        _remove_state(paths.bazaar(bazaar), volumes=volumes)
        return
    raise BazaarError(
        f"bazaar {bazaar}: not all could be taken away:\n" + "\n".join(problems),
        hint="mend that, and run the same again",
    )


def _try(problems: list[str], step: Callable[[], None]) -> None:
    try:
        step()
    except BazaarError as error:
        problems.append(f"  {error.message}")
    except OSError as error:
        problems.append(f"  {error}")


def _remove_drill(bazaar: str) -> None:
    from bazaar.up.drill import flood

    flood.remove(bazaar)


def remove_observers(bazaar: str) -> None:
    """Take its probes and its shield away; where there is no bpffs there are none."""
    from bazaar.bpf import pins
    from bazaar.shield import guard

    if (found := guard.find(bazaar)) is not None:
        found.detach()
    pins.remove_all(f"{pins.top()}/{bazaar}")
    with contextlib.suppress(OSError):
        Path(pins.top()).rmdir()  # only where it is empty


def _remove_balance(bazaar: str) -> None:
    from bazaar.site import balance, names

    balance.stop(bazaar)
    names.stop(bazaar)


def _remove_containers(bazaar: str, emit: Emit, problems: list[str]) -> None:
    from bazaar.run import containers
    from bazaar.up.keeper import remove as remove_container

    found = [c for c in containers.listing() if dict(c.labels).get("bazaar") == bazaar]

    def take(container: ContainerState) -> None:
        began = time.monotonic()
        _try(problems, lambda: remove_container(container.id, GRACE))
        emit({"kind": "replica", "name": container.name, "seconds": time.monotonic() - began})

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(take, found))


def _remove_network(bazaar: str) -> None:
    from bazaar.site import network

    network.remove_all(bazaar)


def _remove_state(folder: Path, *, volumes: bool) -> None:
    """All files but the volumes, unless these are to go too."""
    kept = folder / "volumes"
    keep = not volumes and kept.is_dir() and any(kept.iterdir())
    for entry in list(folder.glob("*")) + list(folder.glob(".*")):
        if keep and entry == kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    if not keep:
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()


def remove_empty_folders() -> None:
    """The state folder itself goes with the last that was in it."""
    for folder in (paths.state() / "bazaars", paths.containers(), paths.state()):
        with contextlib.suppress(OSError):
            folder.rmdir()  # only where it is empty
