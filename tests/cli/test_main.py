"""The command line's root: how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bazaar.host import paths


def talker(stream: str) -> None:
    """A container that said something and ended."""
    folder = paths.containers() / "run.talker"
    folder.mkdir(parents=True)
    about = {"id": "run.talker", "name": "talker", "engine": "shared", "labels": {}}
    (folder / "container.json").write_text(json.dumps(about))
    (folder / "log").write_text(f"2026-11-22T20:53:42.536922198Z {stream} F a word\n")


# Little, which is written when the program ends, and more than fits a buffer; click's own output,
# lines that are flushed, those of threads, and those of the fast path.
@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        ["ps", "-o", "json"],
        ["stands"],
        ["schema"],
        ["doctor"],
        ["--help"],
        ["run", "--help"],
        ["trace", "-l", "*"],
        ["trace", "-e", 'BEGIN { printf("here\\n"); exit(); }'],
        ["logs", "talker"],
        ["logs", "--follow", "talker"],
    ],
    ids=" ".join,
)
def test_a_reader_that_goes_away_is_told_by_the_exit_code_alone(words, state):
    talker("stdout")
    here, there = os.pipe()
    os.close(here)
    done = subprocess.run(
        [sys.executable, "-m", "bazaar", *words],
        stdout=there,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(there)
    assert done.stderr in ("", "Attaching 1 probe...\n")
    assert done.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["ps"],
        ["stands"],
        ["schema"],
        ["trace", "-l", "*"],
        ["trace", "-e", 'BEGIN { printf("here\\n"); exit(); }'],
        ["trace", "-d", "1", "-e", 'BEGIN { printf("here\\n"); exit(); }'],
    ],
    ids=" ".join,
)
def test_an_output_that_takes_nothing_is_told(words, unbuffered, state):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bazaar", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=60,
            check=False,
        )
    said = done.stderr.removeprefix("Attaching 1 probe...\n")
    first, second = said.splitlines()
    assert first == "bazaar: the output or a file cannot be written: No space left on device"
    assert "stdout" in second
    assert done.returncode == 1


def test_a_reader_of_both_streams_goes_away(state):
    talker("stderr")
    here, there = os.pipe()
    os.close(here)
    words = [sys.executable, "-m", "bazaar", "logs", "talker"]
    done = subprocess.run(words, stdout=there, stderr=there, timeout=60, check=False)
    os.close(there)
    assert done.returncode == 141
