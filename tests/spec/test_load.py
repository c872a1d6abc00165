"""Descriptions read from YAML and Python, and what is said of wrong ones."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import SpecError
from bazaar.spec import (
    Bazaar,
    File,
    Health,
    Probe,
    Restart,
    Secret,
    Service,
    Shield,
    Site,
    Volume,
    check,
    load,
    loads,
    to_mapping,
    to_yaml,
)
from tests.spec import broken

EXAMPLES = Path(__file__).parents[2] / "examples"

FULL = """
bazaar: full
subnet: 10.99.0.0/16
sites:
  u: {subnet: 10.99.1.0/24}
  k:
services:
  web:
    image: registry.example/web:1
    command: serve --port 80
    entrypoint: [/bin/entry]
    port: 80
    replicas: 2
    sites: [u]
    kernel: shared
    environment: {PLAIN: text, NUMBER: 5, TOKEN: {env: TOKEN}, KEY: {file: /etc/key}}
    volumes: ["data:/data", "/srv:/srv:ro"]
    files: {/etc/app.conf: "a = 1\\n", /etc/other.conf: {file: /etc/hostname}}
    memory: 256M
    cpus: 0.5
    pids: 100
    health: {kind: http, path: /health, interval: 500ms, timeout: 1s, start_period: 5m}
    publish: [8080, "0.0.0.0:8081"]
    certificate: /etc/ssl/web.pem
    mode: http
    nearest: u
    working_directory: /srv
    user: "1000:1000"
    restart: {first: 1s, longest: 10s}
  plain:
    stand: python
probes:
  text: "BEGIN { exit(); }"
shield: {rate: 500/s, burst: 10, allow: [192.0.2.1], block: 5s, mode: dry-run}
"""


def full() -> Bazaar:
    """FULL, made in Python."""
    return Bazaar(
        "full",
        subnet="10.99.0.0/16",
        sites=[Site("u", subnet="10.99.1.0/24"), Site("k")],
        services=[
            Service(
                "web",
                image="registry.example/web:1",
                command=["serve", "--port", "80"],
                entrypoint="/bin/entry",
                port=80,
                replicas=2,
                sites=["u"],
                kernel="shared",
                environment={
                    "PLAIN": "text",
                    "NUMBER": "5",
                    "TOKEN": Secret(env="TOKEN"),
                    "KEY": Secret(file="/etc/key"),
                },
                volumes=[Volume("data", "/data"), Volume("/srv", "/srv", read_only=True)],
                files={"/etc/app.conf": "a = 1\n", "/etc/other.conf": File(file="/etc/hostname")},
                memory=256 << 20,
                cpus=0.5,
                pids=100,
                health=Health("http", "/health", 0.5, 1, 300),
                publish=[8080, "0.0.0.0:8081"],
                certificate="/etc/ssl/web.pem",
                mode="http",
                nearest="u",
                working_directory="/srv",
                user="1000:1000",
                restart=Restart(1, "10s"),
            ),
            Service("plain", stand="python"),
        ],
        probes=[Probe("text", "BEGIN { exit(); }")],
        shield=Shield(500, burst=10, allow=["192.0.2.1"], block=5, mode="dry-run"),
    )


def test_yaml_and_python_say_the_same():
    assert loads(FULL) == check(full())


def test_the_examples_are_the_same_bazaar():
    assert load(EXAMPLES / "fosdem.yaml") == load(EXAMPLES / "fosdem.py")


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_example_loads(path):
    if path.suffix in (".yaml", ".py"):
        bazaar = load(path)
        assert bazaar.services or any(site.cluster for site in bazaar.sites)


def test_a_description_written_out_is_read_as_the_same():
    bazaar = loads(FULL)
    assert loads(to_yaml(bazaar)) == bazaar
    assert to_mapping(loads(to_yaml(bazaar))) == to_mapping(bazaar)
    assert check(bazaar) == bazaar


def test_what_is_as_by_default_is_not_written_out():
    bazaar = loads("bazaar: x\nsites: {a: }\nservices: {s: {stand: apache, port: }}\nshield: {}")
    assert to_mapping(bazaar) == {
        "bazaar": "x",
        "sites": {"a": {}},
        "services": {"s": {"stand": "apache"}},
        "shield": {},
    }


def test_without_sites_there_is_one_on_this_machine():
    assert loads("bazaar: x").sites == (Site("local"),)


def test_paths_are_seen_from_the_description(tmp_path):
    (tmp_path / "p.bt").write_text("BEGIN { exit(); }")
    (tmp_path / "b.yaml").write_text(
        "bazaar: x\nprobes: {p: {file: p.bt}}\nservices:\n  s:\n    image: dir:root\n"
        "    environment: {A: {file: ../a}}\n    files: {/f: {file: ./f}}\n"
    )
    bazaar = load(tmp_path / "b.yaml")
    assert bazaar.probes[0].file == str(tmp_path / "p.bt")
    assert bazaar.services[0].image == f"dir:{tmp_path}/root"
    assert bazaar.services[0].environment == {"A": Secret(file=str(tmp_path.parent / "a"))}
    assert bazaar.services[0].files == {"/f": File(file=str(tmp_path / "f"))}


@pytest.mark.parametrize("name", broken.STRUCTURE | broken.TOGETHER)
def test_what_is_said_of_a_wrong_description(name):
    content, messages = (broken.STRUCTURE | broken.TOGETHER)[name]
    with pytest.raises(SpecError) as caught:
        loads(content, "f")
    said = [str(problem) for problem in caught.value.problems]
    assert len(said) == len(messages), said
    for one, message in zip(said, messages, strict=True):
        assert one.startswith(message)
    noun = "error" if len(messages) == 1 else "errors"
    assert f"{len(messages)} {noun}, nothing was changed." in str(caught.value)


def test_python_gets_the_same_messages_without_places():
    wrong = Bazaar(
        "x",
        services=[
            Service("a", stand="apach", replicas="two"),  # type: ignore[arg-type]
            Service("a", image="x", sites=["nowhere"]),
            "b",  # type: ignore[list-item]
        ],
        shield="on",  # type: ignore[arg-type]
    )
    with pytest.raises(SpecError) as caught:
        check(wrong)
    assert {str(problem) for problem in caught.value.problems} >= {
        "services.a: there are two services of this name",
        "services.a.sites[0]: there is no site 'nowhere'. There are: local",
        "services[2]: 'b' is no Service",
    }
    assert any("shield: 'on' is not a mapping" in str(p) for p in caught.value.problems)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("from bazaar import Bazaar\n", "exactly one Bazaar at its top level, and it defines none"),
        (
            "from bazaar import Bazaar\na = Bazaar('a')\nb = Bazaar('b')\n",
            "it defines 2: a, b",
        ),
        ("from bazaar import Bazaar\n\nBazaar(\n", "f.py:3:7  this is no Python"),
        ("x = 1\n\nx / 0\n", "f.py:3  ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "f.py:1  SystemExit: 3"),
        ("from bazaar import Bazaar\nBazaar('a', colour='red')\n", "f.py:2  TypeError: "),
        ("from bazaar import Bazaar\na = Bazaar('A')\n", "f.py  bazaar: 'A' is no name"),
        ("import nowhere\n", "f.py:1  ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_wrong_python_file(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(content)
    with pytest.raises(SpecError) as caught:
        load("f.py")
    assert message in str(caught.value)


def test_a_python_file_finds_its_neighbours_and_the_same_object_twice_is_one(tmp_path):
    (tmp_path / "neighbour_of_f.py").write_text("NAME = 'mine'\n")
    (tmp_path / "f.py").write_text(
        "from bazaar import Bazaar\nfrom neighbour_of_f import NAME\na = b = Bazaar(NAME)\n"
    )
    assert load(tmp_path / "f.py").name == "mine"


def test_files_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"bazaar: \xe9")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    for path, message in (
        (tmp_path / "no.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe.yaml", "is no regular file"),
        (tmp_path / "latin.yaml", "is not UTF-8 text (byte 8)"),
        (tmp_path / "large.yaml", "is larger than 1 MiB"),
    ):
        with pytest.raises(SpecError, match=".*") as caught:
            load(path)
        assert message in str(caught.value)


KEYS = st.sampled_from(
    ["bazaar", "sites", "services", "probes", "shield", "subnet", "stand", "image", "a", "b",
     "replicas", "health", "environment", "volumes", "files", "publish", "kind", "rate", "name"]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.sampled_from(["apache", "all", "a", "data:/x", "8080", "60s", "http", "on"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@given(TREES)
def test_any_values_are_a_bazaar_or_a_spec_error(tree):
    import yaml

    content = yaml.safe_dump(tree, allow_unicode=True)
    try:
        bazaar = loads(content, "f")
    except SpecError as error:
        assert all(problem.message for problem in error.problems)
    else:
        assert loads(to_yaml(bazaar)) == bazaar


@given(st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, max_size=3), max_size=8))
def test_any_service_is_one_or_a_spec_error(fields):
    import yaml

    tree = {"bazaar": "x", "services": {"s": {"stand": "apache", **fields}}}
    try:
        bazaar = loads(yaml.safe_dump(tree))
    except SpecError as error:
        assert error.problems
    else:
        assert loads(to_yaml(bazaar)) == bazaar


@given(TREES)
def test_any_values_in_python_are_a_bazaar_or_a_spec_error(tree):
    fields = tree if isinstance(tree, dict) else {"stand": tree}
    known = {key: value for key, value in fields.items() if key in Service.__dataclass_fields__}
    try:
        check(Bazaar("x", services=[Service(**{"name": "s", **known})]))
    except SpecError as error:
        assert error.problems


def test_a_wrong_shape_from_python_is_a_spec_error_not_a_traceback():
    with pytest.raises(SpecError):
        check(Bazaar("x", sites=5))  # type: ignore[arg-type]
    with pytest.raises(SpecError):
        check(Bazaar("x", sites="ab"))  # type: ignore[arg-type]
    with pytest.raises(SpecError):
        check(Bazaar("x", services=[Service("s", stand="apache", volumes=[object()])]))  # type: ignore[list-item]


def test_text_is_dedented_for_readers_only():
    text = textwrap.dedent("""
        bazaar: x
        probes:
          p: |
            BEGIN { exit(); }
    """)
    assert loads(text).probes[0].text == "BEGIN { exit(); }\n"


def test_probes_are_compiled_unless_said_otherwise(tmp_path):
    (tmp_path / "f.py").write_text(
        "from bazaar import Bazaar, Probe\nx = Bazaar('x', probes=[Probe('p', 'BEGIN {')])\n"
    )
    (tmp_path / "f.yaml").write_text("bazaar: x\nprobes: {p: 'BEGIN {'}\n")
    for name in ("f.py", "f.yaml"):
        assert load(tmp_path / name, probes=False).name == "x"
        with pytest.raises(SpecError, match=r"probes\.p: 1:8 unexpected"):
            load(tmp_path / name)
