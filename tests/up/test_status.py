"""What the status says of a service's address, and which bazaar is meant."""

from __future__ import annotations

import pytest

from bazaar.cli.main import main
from bazaar.host import paths
from bazaar.spec.resolved import ResolvedService
from bazaar.up.status import url


@pytest.mark.parametrize(
    ("mode", "port", "certificate", "front", "expected"),
    [
        ("http", 80, None, 80, "http://10.44.0.10/"),
        ("http", 8000, None, 8000, "http://10.44.0.10:8000/"),
        ("http", 80, "/site.pem", 443, "https://10.44.0.10/"),
        ("http", 8000, "/site.pem", 443, "https://10.44.0.10/"),
        ("tcp", 5432, "/site.pem", 5432, None),
        ("http", None, None, None, None),
    ],
)
def test_https_has_its_own_port_whatever_the_replicas_listen_at(
    mode, port, certificate, front, expected
):
    service = ResolvedService("web", "i", ("u",), port=port, mode=mode, certificate=certificate)
    assert service.front_port == front
    assert url(service, "10.44.0.10" if port else None) == expected


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["status"], "`bazaar status NAME`"),
        (["down"], "`bazaar down NAME`"),
        (["plan"], "`bazaar plan FILE`"),
        (["logs"], "--bazaar NAME"),
        (["drill"], "--bazaar NAME"),
    ],
)
def test_of_several_bazaars_the_way_to_say_which_is_told(words, way, state, capsys):
    for name in ("one", "two"):
        folder = paths.bazaar(name)
        folder.mkdir(parents=True)
        (folder / "wanted.json").write_text("{}")
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "several bazaars are up: one, two" in told
    assert way in told
