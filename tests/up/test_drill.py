"""Which drills run, and what becomes of those that cannot."""

from __future__ import annotations

import pytest

from bazaar.errors import BazaarError, UsageError
from bazaar.up import drill


def test_an_unknown_drill_is_named():
    with pytest.raises(UsageError, match="there is no drill 'fire'"):
        drill.run("nothing", ["boot", "fire"], lambda text: None)


def test_a_drill_that_cannot_be_measured_leaves_the_others(state):
    figures = drill.run("nothing", ["site", "crash"], lambda text: None)
    assert [(figure.name, figure.value, figure.holds) for figure in figures] == [
        ("site", None, False),
        ("crash", None, False),
    ]
    assert all("nothing: its supervisor does not answer" in figure.note for figure in figures)


def test_one_drill_alone_fails_with_its_error(state):
    with pytest.raises(BazaarError, match="its supervisor does not answer"):
        drill.run("nothing", ["site"], lambda text: None)
