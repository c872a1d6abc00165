"""Cold starts as figures: each network has a goal, which may fail."""

from __future__ import annotations

import pytest

from bazaar.run import measure
from bazaar.run.measure import Times


@pytest.mark.parametrize("name", ["boot", "boot.bridge"])
@pytest.mark.parametrize(("ours", "holds"), [(159.0, True), (185.0, False)])
def test_the_median_has_a_goal_on_every_network(name, ours, holds):
    p50, p99 = measure.figures(Times((ours, ours, 900.0)), Times((100.0,)), name)
    assert (p50.name, p50.goal, p50.holds) == (f"{name}.p50", "<= runsc + 60 ms", holds)
    assert (p99.name, p99.goal, p99.holds) == (f"{name}.p99", None, None)
