"""The catalogue: every stand is whole, and what it starts is one program in the foreground."""

from __future__ import annotations

import re
import subprocess

import pytest

from bazaar.errors import UsageError
from bazaar.spec import Bazaar, Service, resolve, stands

SPDX = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "GPL-2.0-only",
    "PSF-2.0",
    "PostgreSQL",
}


def test_the_technologies_of_the_example_are_there():
    assert {"apache", "mariadb", "prometheus", "python"} <= set(stands.names())


@pytest.mark.parametrize("name", stands.names())
def test_a_stand_is_whole(name):
    stand = stands.get(name)
    assert stand.licence in SPDX
    assert stand.home.startswith("https://")
    assert stand.read
    assert all(reading.title and reading.url.startswith("https://") for reading in stand.read)
    assert re.fullmatch(r"deb://bookworm\?packages=[a-z0-9.,+-]+", stand.image)
    assert stand.port
    assert stand.health.kind == stand.mode
    assert stand.summary.endswith(".")
    assert stand.technology and stand.organisation
    if stand.volume:
        assert stand.stateful  # else replicas would write into one volume


@pytest.mark.parametrize("name", stands.names())
def test_a_stand_resolves_and_listens_where_it_is_told(name):
    service = resolve(Bazaar("x", services=[Service("s", stand=name, port=81)])).services[0]
    assert (service.port, dict(service.environment)["PORT"]) == (81, "81")
    assert "PORT" in " ".join(service.command)


@pytest.mark.parametrize("name", stands.names())
def test_a_stands_script_is_one_a_shell_can_read_and_ends_in_its_program(name):
    command = stands.get(name).command
    if not command[0].endswith("sh"):
        assert command[:2] == ("python3", "-uc")
        compile(command[2], name, "exec")
        return
    assert command[1] == "-euc"
    subprocess.run([command[0], "-n", "-c", command[2]], check=True)
    assert re.search(r"^exec ", command[2], re.MULTILINE)


@pytest.mark.parametrize("name", stands.names())
def test_no_secret_of_a_stand_has_a_value_by_default(name):
    stand = stands.get(name)
    assert not [key for key, _ in stand.environment if "PASSWORD" in key]


def test_an_unknown_stand_names_the_nearest():
    with pytest.raises(UsageError, match="there is no stand 'apach'. Did you mean 'apache'?"):
        stands.get("apach")
    with pytest.raises(UsageError, match="There are: apache"):
        stands.get("../../etc/passwd")
