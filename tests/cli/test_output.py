"""What programs and logs get to see of progress: lines, when there is something to tell."""

from __future__ import annotations

import os
import sys
import time

from bazaar.cli.output import Progress


def wait_for(capsys, text, seconds=5.0):
    """What was printed until ``text`` was."""
    seen, deadline = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} is not in {seen!r}"
        time.sleep(0.01)
        seen += capsys.readouterr().err
    return seen


def test_a_short_step_is_no_line(capsys):
    progress = Progress(pause=30)
    progress.step("looking")
    progress.done("found")
    progress.clear()
    assert capsys.readouterr().err == "found\n"


def test_a_long_step_is_a_line_once_and_is_told_again_with_its_time(capsys):
    progress = Progress(pause=0.02, patience=0.3)
    progress.step("building")
    seen = wait_for(capsys, "building (0 s)\n")
    progress.clear()
    assert seen.startswith("building\n")
    assert "building\n" not in seen[1:]


def test_the_newest_of_many_steps_is_told(capsys):
    progress = Progress(pause=0.2)
    for number in range(50):
        progress.step(f"unpacking {number}")
    seen = wait_for(capsys, "unpacking 49\n")
    progress.clear()
    assert seen == "unpacking 49\n"


def test_nothing_is_told_after_the_end(capsys):
    progress = Progress(pause=0.02, patience=0.02)
    progress.step("building")
    wait_for(capsys, "building\n")
    progress.clear()
    time.sleep(0.05)  # a line that was due just then
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line_that_changes(monkeypatch):
    here, there = os.openpty()
    with os.fdopen(there, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress(pause=0.01, patience=0.01)
        progress.step("first")
        progress.step("second")
        time.sleep(0.1)
        progress.done("result")
        text = ""
        while "\n" not in text:
            text += os.read(here, 4096).decode()
    os.close(here)
    assert text == "\r\033[Kfirst\r\033[Ksecond\r\033[Kresult\r\n"
