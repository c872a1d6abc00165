"""`bazaar doctor`, as a user calls it."""

from __future__ import annotations

import json

from bazaar.cli.main import main
from bazaar.up import doctor


def test_the_table_and_the_json_tell_the_same(capsys):
    code = main(["doctor", "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    assert code == (0 if told["ready"] else 1)
    assert {need["name"] for need in told["needs"]} == {need.name for need in doctor.needs()}
    assert main(["doctor"]) == code
    table = capsys.readouterr().out
    assert table.splitlines()[0].split()[:3] == ["NEED", "THERE", "FOR"]
    for need in told["needs"]:
        assert need["name"] in table
        assert need["present"] or need["remedy"] in table


def test_what_is_missing_is_marked_and_its_remedy_told(capsys, monkeypatch):
    needs = [
        doctor.Need("a", "program", ("site",), "x", False, "", "get a", "a", True),
        doctor.Need("b", "kernel", ("trace",), "y", False, "refused", "get b"),
        doctor.Need("c", "kernel", doctor.LAYERS, "z", True),
    ]
    monkeypatch.setattr(doctor, "needs", lambda *_: needs)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "MISSING", "site", "x"]
    assert lines[2].split() == ["b", "no", "trace", "y", "refused"]
    assert lines[3].split() == ["c", "yes", "all", "z"]
    assert "missing  a: get a" in lines
    assert "missing  b: get b" in lines
    assert lines[-1] == "`bazaar doctor --fix` installs what can be installed."


def test_only_what_is_not_essential_missing_is_no_failure(capsys, monkeypatch):
    needs = [doctor.Need("b", "kernel", ("trace",), "y", False, "refused", "get b")]
    monkeypatch.setattr(doctor, "needs", lambda *_: needs)
    assert main(["doctor"]) == 0
    assert "missing  b: get b" in capsys.readouterr().out
