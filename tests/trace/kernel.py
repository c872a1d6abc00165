"""Helpers to run trace programs in the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from bazaar import trace
from bazaar.trace import Session, show
from bazaar.trace.read import MapValue, Value

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="tracing needs to be root")


def run(text: str, **options: object) -> tuple[str, Session]:
    """All output of a program that calls exit(), and its closed session."""
    with trace.attach(trace.compile(text, **options)) as session:
        output = session.poll()
        wait(lambda: session.finished, session, output)
        output += session.finish()
        return show.outputs_text(output) + "\n\n" + show.text(session.maps()), session


def wait(done: Callable[[], bool], session: Session, output: list, seconds: float = 10) -> None:
    """Poll until ``done``."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come"
        output += session.poll(0.05)


def value(maps: list[MapValue], name: str, *key: int | str) -> Value | None:
    """One value of a session's maps."""
    found = next(item for item in maps if item.name == name)
    return next((entry.value for entry in found.entries if entry.key == key), None)
