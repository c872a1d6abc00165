"""How the fields of a cluster's description are read, and what editors see of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from typing import Any, cast

from bazaar.spec import cluster_values as read
from bazaar.spec import values
from bazaar.spec.fields import (
    NestedError,
    Reads,
    choice,
    each_of,
    host_path,
    list_of,
    mapping_of,
    text_schema,
)

ROLES = ("control-plane", "worker", "etcd")
MOST_LOCAL = 100
_LABELS = mapping_of(read.label, "labels and their values")
_TAINTS = list_of(read.taint, "taints such as dedicated=db:NoSchedule")
_ROLE = choice(*ROLES)
_READERS: dict[str, Any] = {
    "name": values.label,
    "address": read.address,
    "user": read.user,
    "port": values.port,
    "key": host_path,
    "known_hosts": host_path,
    "labels": _LABELS,
    "taints": _TAINTS,
    "role": _ROLE.parse,
    "internal_address": values.address,
}


def _machine(part: type[Any], value: Any, *, without: tuple[str, ...] = ()) -> Any:
    """One machine: a place as text, or a mapping; every mistake at its own key."""
    if isinstance(value, part):
        named = {field.name: getattr(value, field.name) for field in fields_of(part)}
        value = {key: one for key, one in named.items() if one not in (None, (), {})}
    if not isinstance(value, Mapping):
        return part(**read.place(value))
    known = [field.name for field in fields_of(part) if field.name not in without]
    given = {str(k): v for k, v in cast(Mapping[Any, Any], value).items() if v is not None}

    def one(key: str | int, item: Any) -> tuple[str, Any]:
        if key not in known:
            near = values.meant(str(key), known) or f" There are: {', '.join(known)}"
            raise ValueError(f"there is no key {values.show(key)} here.{near}")
        if key == "jump":
            jumped = ("jump", "labels", "taints", "role", "internal_address")
            return "jump", _machine(part, item, without=jumped)
        return str(key), _READERS[str(key)](item)

    found = dict(each_of(list(given.items()), one))
    if "address" not in found:
        raise ValueError("a machine needs an address")
    return part(**found)


def machines(part: type[Any]) -> Reads:
    """A number of machines, or a list of them."""

    def parse(value: Any) -> Any:
        if isinstance(value, list | tuple):
            items = list(enumerate(cast(list[Any], value)))
            found = each_of(cast(Any, items), lambda _, item: _machine(part, item))
            if not found:
                raise ValueError("a list without a machine")
            return tuple(found)
        if isinstance(value, int) and not isinstance(value, bool):
            return values.whole(value, 1, MOST_LOCAL)
        raise ValueError(
            f"{values.show(value)} is neither a number of machines nor a list of addresses"
        )

    return Reads(
        parse,
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_LOCAL},
                {"type": "array", "minItems": 1, "items": _machine_schema(jump=True)},
            ]
        },
    )


def _machine_schema(*, jump: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "name": text_schema(values.LABEL),
        "address": text_schema(None, "10.0.0.1"),
        "user": text_schema(read.USER),
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "key": text_schema(),
        "known_hosts": text_schema(),
    }
    if jump:
        properties |= {
            "jump": _machine_schema(jump=False),
            "labels": {
                "type": "object",
                "propertyNames": {"pattern": read.LABEL_KEY},
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            },
            "taints": {"type": "array", "items": text_schema(read.TAINT)},
            "role": {"enum": list(ROLES)},
            "internal_address": text_schema(),
        }
    whole = {
        "type": "object",
        "properties": properties,
        "required": ["address"],
        "additionalProperties": False,
    }
    return {"anyOf": [text_schema(None, "10.0.0.1", "w1=admin@10.0.0.2:2222"), whole]}


def _gates(key: str, value: Any) -> tuple[str, bool]:
    if not key.isalnum():
        raise ValueError(f"{values.show(key)} is no feature gate's name")
    return key, read.truth(value)


def _mirrors(key: str, value: Any) -> tuple[str, tuple[str, ...]]:
    return read.registry(key), list_of(read.url, "addresses of mirrors", one=True)(value)


def _arguments(key: str, value: Any) -> tuple[str, dict[str, str]]:
    try:
        return read.arguments(key, dict(value) if isinstance(value, Mapping) else value)  # pyright: ignore[reportUnknownArgumentType]
    except ValueError as error:
        raise NestedError([((), str(error))]) from None


def _planes(value: Any) -> int:
    if type(value) is int and value in (1, 3, 5):
        return value
    raise ValueError(f"{values.show(value)} is not 1, 3 or 5, so that a majority is clear")


_NETWORK = text_schema(r"^[0-9.]+/[0-9]+(,[0-9a-fA-F:]+/[0-9]+)?$", "10.244.0.0/16")
VERSION = Reads(read.version, text_schema(read.VERSION, "1.36.3"))
CONTROL_PLANES = Reads(_planes, {"enum": [1, 3, 5]})
RANGE = Reads(values.networks, _NETWORK)
DOMAIN = Reads(read.domain, text_schema(read.DOMAIN, "cluster.local"))
ADDRESS = Reads(read.address, text_schema(None, "10.0.0.10"))
TRUTH = Reads(read.truth, {"type": "boolean"})
GATES = Reads(
    mapping_of(_gates, "feature gates and true or false"),
    {"type": "object", "additionalProperties": {"type": "boolean"}},
)
ARGUMENTS = Reads(
    mapping_of(_arguments, "components and their flags"),
    {
        "type": "object",
        "propertyNames": {"enum": list(read.COMPONENTS)},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
    },
)
MIRRORS = Reads(
    mapping_of(_mirrors, "registries and their mirrors"),
    {
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        },
    },
)
URL = Reads(read.url, text_schema("^https?://", "http://10.0.0.1:3128"))
NO_PROXY = Reads(
    list_of(read.no_proxy, "hosts, domains and networks", one=True),
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
)
PATHS = Reads(
    list_of(host_path, "paths of manifests", one=True),
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
)
