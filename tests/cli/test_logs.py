"""`bazaar logs`: lines as text and as JSON."""

from __future__ import annotations

import json

import pytest

from bazaar.cli.main import main
from bazaar.host import paths


@pytest.fixture
def talker(state):
    """A container that ended, and said three things."""
    folder = paths.containers() / "run.talker"
    folder.mkdir(parents=True)
    about = {"id": "run.talker", "name": "talker", "engine": "shared", "labels": {}}
    (folder / "container.json").write_text(json.dumps(about))
    (folder / "log").write_text(
        "2026-11-22T20:53:42.500000000Z stdout F a word\n"
        "2026-11-22T20:53:43.000000000Z stderr P half a \n"
        "2026-11-22T20:53:43.250000000Z stderr F line\n"
    )


def test_lines_go_to_the_stream_they_came_from(talker, capfd):
    assert main(["logs", "talker"]) == 0
    assert capfd.readouterr() == ("a word\n", "half a line\n")


@pytest.mark.parametrize("more", [[], ["--follow"]])
def test_json_is_an_object_a_line(talker, capfd, more):
    assert main(["logs", "talker", "-o", "json", *more]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    first, second, third = map(json.loads, out.splitlines())
    assert first == {
        "time": 1795380822.5,
        "container": "run.talker",
        "name": "talker",
        "stream": "stdout",
        "text": "a word",
        "ends": True,
    }
    assert (second["stream"], second["text"], second["ends"]) == ("stderr", "half a ", False)
    assert (third["text"], third["ends"]) == ("line", True)
