"""`bazaar stands`, as a user calls it."""

from __future__ import annotations

import json

import pytest

from bazaar.cli.main import main
from bazaar.spec import loads, stands


def test_the_list_names_every_stand(capsys):
    assert main(["stands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["STAND", "TECHNOLOGY", "ORGANISATION", "PORT", "LICENCE"]
    rows = lines[1 : lines.index("")]
    assert tuple(row.split()[0] for row in rows) == stands.names()


def test_as_json_it_holds_everything(capsys):
    assert main(["stands", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stand["name"] for stand in told] == list(stands.names())
    assert main(["stands", "apache", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) in told


@pytest.mark.parametrize("name", stands.names())
def test_one_is_described_with_a_service_to_copy(capsys, name):
    assert main(["stands", name]) == 0
    out = capsys.readouterr().out
    stand = stands.get(name)
    for said in (stand.technology, stand.organisation, stand.licence, stand.home, stand.image):
        assert said in out
    copied = out.splitlines()[-1].strip()
    assert loads(f"bazaar: x\n{copied}\n").services[0].stand == name


def test_an_unknown_one_names_the_nearest(capsys):
    assert main(["stands", "apach"]) == 2
    assert capsys.readouterr().err == (
        "bazaar: there is no stand 'apach'. Did you mean 'apache'?\n"
    )
