"""The JSON Schema of a bazaar's YAML, so that editors complete and check it while it is typed."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from bazaar.spec import values
from bazaar.spec.model import Bazaar, Probe, Service, Shield, Site

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema, in JSON Schema draft 2020-12."""
    definitions: dict[str, Any] = {}
    for part in (Site, Service, Probe, Shield):
        made = TypeAdapter(part).json_schema(ref_template="#/$defs/{model}")
        for name, nested in made.pop("$defs", {}).items():
            definitions[name] = _tidy(nested)
        definitions[part.__name__] = _tidy(made)
    definitions["Service"]["oneOf"] = [{"required": ["stand"]}, {"required": ["image"]}]
    definitions["Probe"]["oneOf"] = [{"required": ["text"]}, {"required": ["file"]}]
    # A probe may be written as its text alone, a site as its name alone.
    probe = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Probe"}]}
    site = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Site"}]}
    fields = TypeAdapter(Bazaar).json_schema()["properties"]
    plain = _tidy({"properties": {name: fields[name] for name in ("subnet", "domain")}})
    return {
        "$schema": DIALECT,
        "title": "A bazaar of open source technology",
        "type": "object",
        "properties": {
            "bazaar": _described("The bazaar's name.", {"type": "string", "pattern": values.LABEL}),
            **plain["properties"],
            "sites": _by_name("Where services run, by name; one local site by default.", site),
            "services": _by_name("What runs, by name.", {"$ref": "#/$defs/Service"}),
            "probes": _by_name("Trace programs that stay attached, by name.", probe),
            "shield": _described(
                "Guards the front door against floods; without it nothing does.",
                {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Shield"}]},
            ),
        },
        "required": ["bazaar"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, **schema}


def _by_name(description: str, part: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": ["object", "null"],
        "propertyNames": {"pattern": values.LABEL},
        "additionalProperties": part,
    }


def _tidy(made: dict[str, Any]) -> dict[str, Any]:
    """A part as YAML has it: named by its key, each field may be left empty."""
    found = dict(made)
    properties = {
        name: _field(field) for name, field in made.get("properties", {}).items() if name != "name"
    }
    found["properties"] = properties
    found.pop("required", None)
    return found


def _field(field: dict[str, Any]) -> dict[str, Any]:
    about = {key: field[key] for key in ("description", "default") if key in field}
    rest = {key: value for key, value in field.items() if key not in (*about, "title")}
    if about.get("default", 0) is None:
        del about["default"]
    if not rest:
        return about  # anything goes
    already = {"type": "null"} in rest.get("anyOf", [])
    return about | (rest if already else {"anyOf": [rest, {"type": "null"}]})
