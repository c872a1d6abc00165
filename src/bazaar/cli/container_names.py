"""Containers as people name them: by name, by id, or by the beginning of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bazaar.errors import BazaarError, EngineError, UsageError


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
    exact = [state for state in found if name in (state.name, state.id)]
    near = exact or [state for state in found if state.id.startswith(f"run.{name}")]
    if len(near) > 1:
        raise UsageError(f"'{name}' could be {', '.join(state.name for state in near)}")
    if not near:
        raise EngineError(f"there is no container {name}", hint="`bazaar ps --all` lists them")
    state = near[0]
    if bazaar := dict(state.labels).get("bazaar"):
        raise UsageError(
            f"{state.name} is a replica of the bazaar {bazaar}, which would start it again",
            hint="change the bazaar's description, or `bazaar down`",
        )
    return state.id
