"""Containers as people name them: by name, by id, or by the beginning of a random one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from bazaar.errors import BazaarError, EngineError, UsageError

# What `bazaar run` calls a container without --name: 12 hexadecimal digits.
_RANDOM = re.compile(r"[0-9a-f]{12}")


def each(names: Iterable[str], act: Callable[[str, str], None]) -> int:
    """Act on every container named; one that fails stops no other. The exit code."""
    from bazaar.cli.main import print_error

    code = 0
    for name in names:
        try:
            act(_owned(name), name)
        except BazaarError as error:
            print_error(error)
            code = 1
    return code


def _owned(name: str) -> str:
    """The id of a container of `bazaar run`. Raises for a replica, which its bazaar keeps."""
    from bazaar.run import containers

    found = containers.listing()
    # Chosen names match whole: `rm docs` must not take `docs-old`. Random ones may be cut short.
    near = [state for state in found if name in (state.name, state.id)] or [
        state
        for state in found
        if name and state.name.startswith(name) and _RANDOM.fullmatch(state.name)
    ]
    if len(near) > 1:
        raise UsageError(f"'{name}' could be {', '.join(state.name for state in near)}")
    if not near:
        raise EngineError(f"there is no container {name}", hint="`bazaar ps --all` lists them")
    state = near[0]
    if bazaar := dict(state.labels).get("bazaar"):
        raise UsageError(
            f"{state.name} is a replica of the bazaar {bazaar}: its supervisor starts it again",
            hint=f"change the description to stop it, or take all away by `bazaar down {bazaar}`",
        )
    return state.id
