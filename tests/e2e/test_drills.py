"""Drills on a small bazaar: figures in the documented form; goals are for idle machines."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import SERVER
from tests.e2e.test_bazaar import spec

pytestmark = [pytest.mark.alone]
FIELDS = {"name", "value", "unit", "rival", "rival_value", "ratio", "goal", "holds", "note"}


@pytest.fixture(scope="module")
def bazaar(instance):
    server = instance.folder / "server.py"
    server.write_text(SERVER)
    instance.environment["NOTE_SECRET"] = "x"
    instance.write(spec(server))
    instance.up()
    return instance


@pytest.mark.parametrize(
    ("drill", "expected"),
    [
        ("boot", {"boot.p50", "boot.p99"}),
        ("trace", {"trace.bare", "trace.cost", "trace.event"}),
        ("site", {"site.failover", "site.lost", "site.lost_at_return", "site.return"}),
        ("crash", {"crash.recovery", "crash.restarted", "crash.lost"}),
        ("flood", {"flood.rate", "flood.control", "flood.with_shield", "flood.without_shield"}),
    ],
)
def test_drill(bazaar, drill, expected):
    done = bazaar.run("drill", drill, "--bazaar", bazaar.name, "-o", "json", check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert {"cores", "memory", "kernel"} <= set(found["machine"])
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert expected <= set(figures)
    for figure in figures.values():
        assert set(figure) == FIELDS
        assert figure["name"].startswith(f"{drill}.")
        assert figure["holds"] in (True, False, None)
        assert (figure["holds"] is None) == (figure["goal"] is None)
        assert figure["value"] is not None
    if drill == "site":
        # Four clients ask one after the other: no more than four can be in flight.
        assert figures["site.lost"]["value"] <= 4
        assert figures["site.lost_at_return"]["value"] == 0
    if drill == "crash":
        assert figures["crash.restarted"]["value"] == figures["crash.lost"]["value"] == 0
    after = bazaar.status()
    assert all(s["healthy"] == s["wanted"] for s in after["services"])
    assert after["shield"]["mode"] == "on"


def test_an_unknown_drill(bazaar):
    done = bazaar.run("drill", "sites", "--bazaar", bazaar.name, check=False)
    assert done.returncode == 2
    assert "there is no drill 'sites'" in done.stderr
