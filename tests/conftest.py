"""What holds for all tests: nothing is left behind, and each has a state folder of its own.

BAZAAR_TEST_LEAKS=fail makes what is left behind a failure, BAZAAR_TEST_SKIPS=fail a skipped test:
for machines known to have all that is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks

_before: dict[str, frozenset[str]] = {}
_skipped: list[str] = []
_problems: list[str] = []  # of the whole run, beside failed tests


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        _before.update(leaks.snapshot())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not hasattr(terminalreporter.config, "workerinput"):
        for line in _problems:
            terminalreporter.write_line(line, red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workerinput"):
        return
    left = leaks.left(_before)
    _problems.extend(f"LEFT BEHIND: {line}" for line in left)
    failing = bool(left) and os.environ.get("BAZAAR_TEST_LEAKS") == "fail"
    if os.environ.get("BAZAAR_TEST_SKIPS") == "fail":
        _problems.extend(f"SKIPPED, and must not be here: {name}" for name in _skipped)
        failing |= bool(_skipped)
    if failing and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of this test's own; the cache is the machine's."""
    folder = tmp_path / "state"
    monkeypatch.setenv("BAZAAR_STATE", str(folder))
    yield folder
