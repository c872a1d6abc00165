"""HAProxy's configuration as text; HAProxy itself judges it."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bazaar.errors import CommandError, NetworkError
from bazaar.host import commands
from bazaar.model.site import Backend, Front, Health, Publish
from bazaar.site import configuration, runtime
from bazaar.site.configuration import Settings
from tests.site import golden
from tests.site.conftest import needs

SETTINGS = Settings("fosdem", user="root", group="root", threads=2)
U, K = Backend("web/u/1", "u", "10.44.1.11", 80), Backend("web/k/1", "k", "10.44.2.11", 8080)
FRONTS: dict[str, list[Front]] = {
    "http.cfg": [
        Front("web", "10.44.0.10", 80, health=Health("http", "/healthz", 0.5, 1.5), backends=(U, K))
    ],
    "tcp.cfg": [
        Front(
            "db",
            "10.44.0.13",
            3306,
            mode="tcp",
            backends=(Backend("db/u/1", "u", "10.44.1.12", 3306),),
        )
    ],
    "nearest.cfg": [
        Front("web", "10.44.0.10", 80, health=Health("none"), backends=(U, K), nearest="k")
    ],
    "draining.cfg": [
        Front(
            "web", "10.44.0.10", 80, backends=(U, Backend("web/k/1", "k", "10.44.2.11", 80, True))
        )
    ],
    "published.cfg": [
        Front(
            "web",
            "10.44.0.10",
            443,
            backends=(U,),
            publish=(Publish("127.0.0.1", 8443), Publish("::1", 8443)),
            certificate=Path("/etc/ssl/my site.pem"),
        ),
        Front("cache", "10.44.0.11", 6379, mode="tcp"),
    ],
}


def with_host(name: str) -> Settings:
    return (
        Settings(**{**_fields(SETTINGS), "host": "bz-fosdem.host"}) if "pub" in name else SETTINGS
    )


def _fields(value: Settings) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


@pytest.mark.parametrize("name", FRONTS)
def test_as_expected(name: str):
    golden.check(name, configuration.render(with_host(name), FRONTS[name]))


@pytest.mark.parametrize("name", [name for name in FRONTS if name != "published.cfg"])
def test_haproxy_accepts_it(name: str, tmp_path: Path):
    needs("haproxy")
    accepted_by_haproxy(configuration.render(SETTINGS, FRONTS[name]), tmp_path)


def accepted_by_haproxy(text: str, folder: Path) -> None:
    (folder / "haproxy.cfg").write_text(text)
    (folder / "servers.state").write_text("\n".join([*runtime.STATE_HEAD, ""]))
    (folder / "empty").mkdir(exist_ok=True)
    said = commands.run(["haproxy", "-c", "-f", "haproxy.cfg"], folder=folder)
    assert "WARNING" not in said.output + said.errors


def test_only_servers_are_outside_the_structure():
    text = configuration.render(SETTINGS, FRONTS["http.cfg"])
    one = configuration.render(
        SETTINGS,
        [
            Front(
                "web", "10.44.0.10", 80, health=Health("http", "/healthz", 0.5, 1.5), backends=(U,)
            )
        ],
    )
    other = configuration.render(SETTINGS, FRONTS["draining.cfg"])
    assert configuration.structure(text) == configuration.structure(one)
    assert configuration.structure(text) != configuration.structure(other)


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (Front("a b", "10.0.0.1", 80), "cannot name a service"),
        (Front("web\n    bind :1", "10.0.0.1", 80), "cannot name a service"),
        (Front("web", "10.0.0", 80), "is no address"),
        (Front("web", "10.0.0.1", 0), "is no port"),
        (Front("web", "10.0.0.1", 80, mode="udp"), "unknown mode"),
        (Front("web", "10.0.0.1", 80, health=Health("http", "/\n")), "cannot stand in"),
        (Front("web", "10.0.0.1", 80, health=Health("http", "/'")), "cannot stand in"),
        (Front("web", "10.0.0.1", 80, health=Health(interval=0)), "must be above 0"),
        (Front("web", "10.0.0.1", 80, backends=(Backend("a\tb", "u", "10.0.0.2", 1),)), "replica"),
        (Front("web", "10.0.0.1", 80, backends=(U, U)), "the same name"),
        (Front("web", "10.0.0.1", 80, publish=(Publish("localhost", 1),)), "is no address"),
        (Front("web", "10.0.0.1", 80, publish=(Publish("::1", 1),) * 2), "asked for twice"),
        (Front("web", "1.1.1.1", 80, certificate=Path("/a'b")), "cannot stand in"),
    ],
)
def test_what_cannot_be_said_is_refused(front: Front, message: str):
    with pytest.raises(NetworkError, match=message):
        configuration.render(SETTINGS, [front])


def test_two_services_at_one_place():
    fronts = [Front("a", "10.0.0.1", 80), Front("b", "10.0.0.1", 80)]
    with pytest.raises(NetworkError, match=r"b asks for 10.0.0.1:80, asked for by a too"):
        configuration.render(SETTINGS, fronts)


TEXT = st.text(max_size=12) | st.sampled_from(
    ["web", "a/b/1", "/x y", "/%[src]", '/"', "/\\", "/$HOME"]
)


@settings(max_examples=60, deadline=None)
@given(service=TEXT, replica=TEXT, path=TEXT, port=st.integers(-1, 70000))
def test_whatever_the_words_haproxy_takes_it_or_we_refuse(
    tmp_path_factory: pytest.TempPathFactory, service: str, replica: str, path: str, port: int
):
    needs("haproxy")
    backends = (Backend(replica, "u", "10.0.0.2", port),)
    front = Front(service, "10.0.0.1", 80, health=Health("http", path), backends=backends)
    with contextlib.suppress(NetworkError):
        text = configuration.render(SETTINGS, [front])
        assert len(configuration.servers([front])) == 1
        try:
            accepted_by_haproxy(text, tmp_path_factory.mktemp("fuzz"))
        except CommandError as error:
            pytest.fail(f"{error.output}\n{text}")


def test_names_lead_back_to_replicas():
    assert configuration.backend_id(configuration.server_name("web/u/1")) == "web/u/1"
