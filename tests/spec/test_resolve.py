"""What stands and defaults fill in, and the way to JSON and back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import MissingError, SpecError, StateError
from bazaar.model.container import Limits
from bazaar.model.site import Health, Publish
from bazaar.spec import Bazaar, Cluster, Probe, Service, Shield, Site, loads, resolve
from bazaar.spec.resolved import ResolvedVolume, from_json, service_from_json, to_json
from tests.spec.test_load import FULL


def only(service: Service):
    """The one service of a bazaar of two sites, resolved."""
    return resolve(Bazaar("x", sites=[Site("u"), Site("k")], services=[service])).services[0]


def test_a_stand_fills_in_what_is_not_said():
    service = only(Service("web", stand="apache"))
    assert service.image == "deb://bookworm?packages=apache2"
    assert (service.port, service.mode, service.kernel) == (80, "http", "own")
    assert service.health == Health("http", "/")
    assert service.sites == ("u", "k")
    assert ("PORT", "80") in service.environment
    assert service.command[0] == "/bin/sh"


def test_what_is_said_goes_before_the_stand():
    service = only(
        Service(
            "web",
            stand="apache",
            port=8080,
            command="apache2 -X",
            kernel="shared",
            mode="tcp",
            environment={"APACHE_RUN_USER": "me"},
            health=None,
        )
    )
    assert service.command == ("apache2", "-X")
    assert (service.port, service.mode, service.kernel) == (8080, "tcp", "shared")
    assert service.health.kind == "tcp"
    assert dict(service.environment)["PORT"] == "8080"
    assert dict(service.environment)["APACHE_RUN_USER"] == "me"


def test_an_image_without_a_port_is_not_checked_and_its_command_is_its_own():
    service = only(Service("job", image="debian"))
    assert service.health.kind == "none"
    assert (service.command, service.entrypoint, service.mode) == ((), None, "tcp")
    assert service.environment == ()


def test_the_database_shares_the_kernel_and_keeps_its_data():
    service = only(Service("db", stand="mariadb", sites=["k"]))
    assert (service.kernel, service.stateful) == ("shared", True)
    assert service.volumes == (ResolvedVolume("/var/lib/mysql", name="db"),)
    named = only(Service("db", stand="mariadb", sites=["k"], volumes=["data:/var/lib/mysql"]))
    assert named.volumes == (ResolvedVolume("/var/lib/mysql", name="data"),)


def test_numbers_of_everything(monkeypatch):
    bazaar = resolve(loads(FULL))
    web = bazaar.services[0]
    assert web.limits == Limits(256 << 20, 0.5, 100)
    assert web.health == Health("http", "/health", 0.5, 1.0, 300.0)
    assert web.publish == (Publish("127.0.0.1", 8080), Publish("0.0.0.0", 8081))
    assert (web.restart_first, web.restart_longest) == (1.0, 10.0)
    assert web.nearest == "u"
    assert web.volumes[1] == ResolvedVolume("/srv", source="/srv", read_only=True)
    assert bazaar.shield is not None
    assert (bazaar.shield.rate, bazaar.shield.burst) == (500.0, 10)
    assert (bazaar.shield.block_seconds, bazaar.shield.mode) == (5.0, "dry-run")
    assert bazaar.subnet == "10.99.0.0/16"
    assert [site.subnet for site in bazaar.sites] == ["10.99.1.0/24", None]


def test_secrets_are_references_and_never_values(monkeypatch):
    monkeypatch.setenv("TOKEN", "it-is-secret")
    bazaar = resolve(loads(FULL))
    secrets = {
        secret.variable: (secret.kind, secret.source) for secret in bazaar.services[0].secrets
    }
    assert secrets == {"TOKEN": ("env", "TOKEN"), "KEY": ("file", "/etc/key")}
    assert not {"TOKEN", "KEY"} & dict(bazaar.services[0].environment).keys()
    assert "it-is-secret" not in json.dumps(to_json(bazaar))


def test_two_seconds_worth_is_the_burst():
    shield = resolve(Bazaar("x", shield=Shield("90/m"))).shield
    assert shield is not None
    assert (shield.rate, shield.burst) == (1.5, 3)


def test_a_changed_file_is_a_change(tmp_path):
    path = tmp_path / "app.conf"
    path.write_text("a = 1")
    bazaar = loads(f"bazaar: x\nservices: {{s: {{image: i, files: {{/a: {{file: {path}}}}}}}}}")
    before = resolve(bazaar)
    path.write_text("a = 2")
    assert resolve(bazaar) != before
    path.unlink()
    with pytest.raises(MissingError, match="the file for /a: cannot read"):
        resolve(bazaar)


def test_a_probes_file_is_read(tmp_path):
    path = tmp_path / "p.bt"
    path.write_text("BEGIN { exit(); }")
    assert resolve(Bazaar("x", probes=[Probe("p", file=str(path))])).probes[0].text == (
        "BEGIN { exit(); }"
    )


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("a", provider="aws"), "sites.a.provider: 'aws' is not there yet"),
        (Site("a", machines=3), "sites.a.machines: is not there yet"),
    ],
)
def test_what_comes_later_is_refused_with_its_place(site, message):
    with pytest.raises(SpecError) as caught:
        resolve(Bazaar("x", sites=[site]))
    assert message in str(caught.value)


def test_what_is_on_clusters_and_what_is_here():
    bazaar = Bazaar(
        "x",
        sites=[Site("paris", cluster=Cluster(), machines=1), Site("here")],
        services=[
            Service("web", image="deb://bookworm", port=80),
            Service("job", image="deb://bookworm", sites=["paris"]),
        ],
    )
    resolved = resolve(bazaar)
    assert resolved.clusters == {"paris": "x-paris"}
    assert [site.name for site in resolved.here.sites] == ["here"]
    assert [service.sites for service in resolved.here.services] == [("here",), ()]
    assert [service.sites for service in resolved.services] == [("paris", "here"), ("paris",)]
    assert resolved.here.here == resolved.here
    assert from_json(json.loads(json.dumps(to_json(resolved)))) == resolved


def test_it_goes_to_json_and_comes_back():
    bazaar = resolve(loads(FULL))
    assert from_json(json.loads(json.dumps(to_json(bazaar)))) == bazaar
    service = bazaar.services[0]
    assert service_from_json(json.loads(json.dumps(to_json(service)))) == service


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "sites", "services", "image"]), inner)
        ),
        max_leaves=10,
    )
)
def test_state_that_is_none_is_a_state_error(value):
    try:
        from_json(value)
    except StateError as error:
        assert "stored state" in error.message


def test_reading_it_back_takes_neither_pydantic_nor_yaml():
    code = (
        "import sys, bazaar.spec.resolved;"
        "sys.exit(bool({'pydantic', 'yaml', 'click'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
