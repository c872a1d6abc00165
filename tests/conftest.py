"""What holds for all tests: nothing is left behind, and each has a state folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks

_before: dict[str, frozenset[str]] = {}


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        _before.update(leaks.snapshot())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if hasattr(terminalreporter.config, "workerinput"):
        return
    for line in getattr(terminalreporter.config, "_left_behind", []):
        terminalreporter.write_line(f"LEFT BEHIND: {line}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workerinput"):
        return
    left = leaks.left(_before)
    session.config._left_behind = left  # type: ignore[attr-defined]
    # Where others use the machine at the same time, what they make is no fault of ours.
    if left and os.environ.get("BAZAAR_TEST_LEAKS") == "fail" and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of this test's own; the cache is the machine's."""
    folder = tmp_path / "state"
    monkeypatch.setenv("BAZAAR_STATE", str(folder))
    yield folder
