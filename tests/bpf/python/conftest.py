"""Maps and programs that are closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bazaar.bpf.maps import Map
from bazaar.bpf.programs import Program
from bazaar.bpf.python import Compiled


class Loaded:
    """A loaded program and its maps."""

    def __init__(self, program: Program, maps: dict[str, Map]) -> None:
        self.program = program
        self.maps = maps
        self.run = program.run


@pytest.fixture
def loaded() -> Iterator:
    """Loads compiled programs, with maps of their own or given ones."""
    with ExitStack() as stack:

        def load(compiled: Compiled, known: dict[str, Map] | None = None) -> Loaded:
            maps = compiled.create_maps(known)
            for one in maps.values():
                stack.callback(one.close)
            return Loaded(stack.enter_context(compiled.load(maps)), maps)

        yield load
