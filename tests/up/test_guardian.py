"""How long the guardian waits before it starts a supervisor again."""

from __future__ import annotations

import itertools

from bazaar.up.guardian import FIRST_PAUSE, next_pause


def pauses(*, killed: bool) -> list[float]:
    steps = itertools.accumulate(
        range(12), lambda last, _: next_pause(last, ran=1.0, killed=killed), initial=FIRST_PAUSE
    )
    return list(steps)


def test_whoever_is_killed_again_and_again_is_back_within_a_second():
    assert pauses(killed=True)[-1] == 1.0


def test_what_fails_by_itself_is_tried_ever_more_seldom():
    assert pauses(killed=False)[-1] == 10.0


def test_after_a_good_run_the_pause_begins_anew():
    assert next_pause(10.0, ran=11.0, killed=False) == FIRST_PAUSE
