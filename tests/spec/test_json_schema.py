"""The JSON Schema says what `load` says, as far as a schema can."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bazaar.spec import Cluster, Probe, Proxy, Service, Shield, Site, load, schema, to_mapping
from bazaar.spec.text import parse
from tests.spec import broken
from tests.spec.json_schema import accepts
from tests.spec.test_load import FULL

EXAMPLES = Path(__file__).parents[2] / "examples"
SCHEMA = schema()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_it_accepts_the_examples(path):
    assert accepts(SCHEMA, parse(path.read_text(), "").value)
    assert accepts(SCHEMA, json.loads(json.dumps(to_mapping(load(path)))))


def test_it_accepts_every_field_and_empty_ones():
    assert accepts(SCHEMA, parse(FULL, "").value)
    assert accepts(SCHEMA, {"bazaar": "x", "sites": {"a": None}, "shield": None, "services": None})
    assert accepts(SCHEMA, {"bazaar": "x", "services": {"a": {"stand": "apache", "port": None}}})


@pytest.mark.parametrize("name", broken.STRUCTURE)
def test_it_refuses_what_load_refuses(name):
    content, _ = broken.STRUCTURE[name]
    assert not accepts(SCHEMA, parse(content, "").value)


@pytest.mark.parametrize("name", broken.TOGETHER)
def test_what_parts_say_of_one_another_is_beyond_it(name):
    if name == "everything at once":
        return
    content, _ = broken.TOGETHER[name]
    assert accepts(SCHEMA, parse(content, "").value)


@pytest.mark.parametrize("part", [Site, Cluster, Proxy, Service, Probe, Shield])
def test_each_field_is_described_for_editors(part):
    properties = SCHEMA["$defs"][part.__name__]["properties"]
    assert set(properties) == {field.name for field in dataclasses.fields(part)} - {"name"}
    assert all(field.get("description") for field in properties.values())
    assert SCHEMA["$defs"][part.__name__]["additionalProperties"] is False
