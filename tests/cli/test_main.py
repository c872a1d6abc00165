"""The command line's root: how it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


# Little, which is written when the program ends, and more than fits a buffer.
@pytest.mark.parametrize("command", ["ps", "stands"])
def test_a_reader_that_goes_away_is_told_by_the_exit_code_alone(command, state):
    here, there = os.pipe()
    os.close(here)
    done = subprocess.run(
        [sys.executable, "-m", "bazaar", command],
        stdout=there,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(there)
    assert done.returncode in (1, 141)
    assert done.stderr == ""
