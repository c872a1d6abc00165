"""As much of JSON Schema (draft 2020-12) as our schema uses; anything else is an error."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
ABOUT = {"$schema", "$defs", "title", "description", "default", "examples"}


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether ``value`` is what the schema describes."""
    whole = schema if root is None else root
    return all(
        _keyword(name, rule, value, schema, whole)
        for name, rule in schema.items()
        if name not in ABOUT
    )


def _keyword(
    name: str, rule: Any, value: Any, schema: dict[str, Any], root: dict[str, Any]
) -> bool:
    def inner(one: dict[str, Any], item: Any) -> bool:
        return accepts(one, item, root)

    number = isinstance(value, int | float) and not isinstance(value, bool)
    mapping = value if isinstance(value, dict) else {}
    match name:
        case "type":
            return any(_is(kind, value) for kind in ([rule] if isinstance(rule, str) else rule))
        case "$ref":
            return inner(root["$defs"][rule.removeprefix("#/$defs/")], value)
        case "anyOf":
            return any(inner(one, value) for one in rule)
        case "oneOf":
            return sum(inner(one, value) for one in rule) == 1
        case "enum":
            return value in rule
        case "const":
            return value == rule
        case "pattern":
            return not isinstance(value, str) or re.search(rule, value) is not None
        case "minimum":
            return not number or value >= rule
        case "maximum":
            return not number or value <= rule
        case "exclusiveMinimum":
            return not number or value > rule
        case "minLength":
            return not isinstance(value, str) or len(value) >= rule
        case "minItems":
            return not isinstance(value, list) or len(value) >= rule
        case "items":
            return not isinstance(value, list) or all(inner(rule, item) for item in value)
        case "required":
            return not isinstance(value, dict) or set(rule) <= set(value)
        case "properties":
            return all(inner(rule[key], item) for key, item in mapping.items() if key in rule)
        case "propertyNames":
            return all(inner(rule, key) for key in mapping)
        case "additionalProperties":
            others = [mapping[key] for key in mapping if key not in schema.get("properties", {})]
            return not others if rule is False else all(inner(rule, item) for item in others)
    raise AssertionError(f"the schema uses {name}, which this reader does not know")


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])
