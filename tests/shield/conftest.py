from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from bazaar.bpf import pins
from bazaar.shield import guard
from bazaar.shield.guard import Guard
from bazaar.shield.settings import ShieldSpec


@pytest.fixture
def shield_name() -> Iterator[str]:
    """A name of this test's own; nothing may be pinned under it afterwards."""
    name = f"t{os.getpid()}{uuid.uuid4().hex[:6]}"
    yield name
    assert not os.path.exists(f"{pins.root()}/{name}")


@pytest.fixture
def make(shield_name: str) -> Iterator[Callable[..., Guard]]:
    """Makes a guard without interfaces, taken away afterwards; keywords are its settings."""
    made: list[Guard] = []

    def build(**changes: object) -> Guard:
        values: dict[str, object] = {"ports": (("tcp", 80), ("udp", 53)), **changes}
        made.append(guard.attach(shield_name, ShieldSpec(**values)))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for item in made[-1:]:
        item.detach()
