"""How each kind of field is read, and how the JSON Schema describes it.

A `Reads` stands in a field's annotation: pydantic calls its function, and its schema is what
editors see. A list or mapping reports every wrong item, each at its own place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from bazaar.spec import values

PROVIDERS = ("local", "hosts", "openstack", "aws", "gcp", "azure", "hetzner")


class NestedError(ValueError):
    """Mistakes of several items of one field, each at its own place."""

    def __init__(self, problems: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


@dataclass(frozen=True)
class Reads:
    """Reads a field by a function that raises ValueError; None stays None: left out."""

    parse: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.schema)

    def _read(self, value: Any) -> Any:
        if value is None:
            return None
        try:
            return self.parse(value)
        except NestedError as nested:
            details: list[InitErrorDetails] = [
                {
                    "type": PydanticCustomError("value", "{message}", {"message": message}),
                    "loc": place,
                    "input": None,
                }
                for place, message in nested.problems
            ]
            raise ValidationError.from_exception_data("field", details) from None
        except ValueError as error:
            raise PydanticCustomError("value", "{message}", {"message": str(error)}) from None


def text_schema(pattern: str | None = None, *examples: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if pattern:
        schema["pattern"] = pattern
    if examples:
        schema["examples"] = list(examples)
    return schema


def _whole(low: int, high: int) -> Reads:
    return Reads(
        lambda value: values.whole(value, low, high),
        {"type": "integer", "minimum": low, "maximum": high},
    )


def choice(*known: str) -> Reads:
    """One of a few words."""
    listed = ", ".join(known[:-1]) + f" or {known[-1]}"

    def read(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        near = values.meant(value, known) if isinstance(value, str) else ""
        raise ValueError(f"{values.show(value)} is not {listed}{near and '.' + near}")

    return Reads(read, {"enum": list(known)})


def each_of(items: list[tuple[str | int, Any]], read: Callable[[str | int, Any], Any]) -> list[Any]:
    """``read`` of each item; every mistake at its place."""
    results: list[Any] = []
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for place, item in items:
        try:
            results.append(read(place, item))
        except NestedError as nested:
            problems += [((place, *inner), message) for inner, message in nested.problems]
        except ValueError as error:
            problems.append(((place,), str(error)))
    if problems:
        raise NestedError(problems)
    return results


def list_of(read: Callable[[Any], Any], what: str, *, one: bool = False) -> Callable[[Any], Any]:
    """Reads a list, or with ``one`` a single item that stands for a list of itself."""

    def read_list(value: Any) -> tuple[Any, ...]:
        if isinstance(value, list | tuple):
            found = each_of(list(enumerate(value)), lambda _, item: read(item))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            return tuple(dict.fromkeys(found))
        if one:
            return (read(value),)
        raise ValueError(f"{values.show(value)} is not a list of {what}")

    return read_list


def mapping_of(
    read: Callable[[str, Any], tuple[str, Any]], what: str
) -> Callable[[Any], Mapping[str, Any]]:
    def read_mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"{values.show(value)} is not a mapping of {what}")
        items: list[tuple[str | int, Any]] = list(value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return dict(each_of(items, lambda key, item: read(str(key), item)))

    return read_mapping


def _one_of(part: type[Any], value: Mapping[Any, Any], what: str) -> Any:
    """A ``part`` of exactly one of its fields, such as a Secret."""
    known = tuple(field.name for field in fields(part))
    for key in value:
        if key not in known:
            raise ValueError(
                f"there is no key {values.show(key)}.{values.meant(str(key), known)}"
                f" {what.capitalize()} has: {', '.join(known)}"
            )
    given = {key: item for key, item in value.items() if item is not None}
    if len(given) != 1:
        raise ValueError(f"{what} needs exactly one of: {', '.join(known)}")
    readers = {"file": host_path, "env": values.variable, "content": values.text}
    return part(**{key: readers[key](item) for key, item in given.items()})


def _fields_of(part: type[Any], value: Any) -> Any:
    if isinstance(value, part):
        return {field.name: getattr(value, field.name) for field in fields(part)}
    return value


def environment(secret: type[Any]) -> Reads:
    """Variables and their values, plain or secret."""

    def read(key: str, value: Any) -> tuple[str, Any]:
        name = values.variable(key)
        value = _fields_of(secret, value)
        if isinstance(value, Mapping):
            return name, _one_of(secret, value, "a secret")  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return name, str(value)
        if not isinstance(value, str):
            raise ValueError(
                f"{values.show(value)} is not text; put it in quotes, "
                "or name a secret: {file: PATH} or {env: NAME}"
            )
        return name, values.text(value)

    return Reads(
        mapping_of(read, "variables and their values"),
        {
            "type": "object",
            "propertyNames": {"pattern": values.VARIABLE},
            "additionalProperties": {
                "anyOf": [
                    {"type": ["string", "number"]},
                    _object({"file": text_schema()}, "A file of the host that holds the value."),
                    _object(
                        {"env": text_schema(values.VARIABLE)},
                        "An environment variable of whoever calls `bazaar up`.",
                    ),
                ]
            },
        },
    )


def files(part: type[Any]) -> Reads:
    """Small files by their path inside."""

    def read(key: str, value: Any) -> tuple[str, Any]:
        target = values.inside(key)
        value = _fields_of(part, value)
        if isinstance(value, Mapping):
            return target, _one_of(part, value, "a file")  # pyright: ignore[reportUnknownArgumentType]
        if not isinstance(value, str):
            raise ValueError(f"{values.show(value)} is neither text nor {{file: PATH}}")
        return target, part(content=values.text(value))

    return Reads(
        mapping_of(read, "paths and what is in them"),
        {
            "type": "object",
            "propertyNames": {"pattern": "^/."},
            "additionalProperties": {
                "anyOf": [
                    {"type": "string"},
                    _object({"content": text_schema()}, "What the file holds."),
                    _object(
                        {"file": text_schema()}, "A file of the host to take the content from."
                    ),
                ]
            },
        },
    )


def volumes(part: type[Any]) -> Reads:
    """Named volumes and directories of the host, by where they are seen inside."""

    def read(value: Any) -> Any:
        if isinstance(value, part):
            source, target, read_only = value.source, value.target, value.read_only
        else:
            words = value.split(":") if isinstance(value, str) else []
            if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in ("ro", "rw")):
                raise ValueError(
                    f"{values.show(value)} is not NAME:/path or /path/on/host:/path, "
                    "each with or without ':ro'"
                )
            source, target, read_only = words[0], words[1], words[2:] == ["ro"]
        if not isinstance(source, str):
            raise ValueError(f"{values.show(source)} is no volume's name")
        checked = values.inside(source) if source.startswith("/") else values.label(source)
        if not isinstance(read_only, bool):
            raise ValueError(f"{values.show(read_only)} is not true or false")
        return part(checked, values.inside(target), read_only)

    pattern = "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|/[^:]+):/[^:]+(:ro|:rw)?$"
    return Reads(
        list_of(read, "volumes such as data:/var/lib/mysql"),
        {"type": "array", "items": text_schema(pattern, "data:/var/lib/mysql")},
    )


def _object(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "description": description,
    }


def host_path(value: Any) -> str:
    checked = values.line(value)
    if len(checked) > 4095:
        raise ValueError(f"{values.show(value)} is too long for a path")
    return checked


def _provider(value: Any) -> str:
    if isinstance(value, str) and value in PROVIDERS:
        return value
    meant = values.meant(value, PROVIDERS) if isinstance(value, str) else ""
    raise ValueError(
        f"there is no provider {values.show(value)}."
        f"{meant or ' There are: ' + ', '.join(PROVIDERS)}"
    )


def _stand(value: Any) -> str:
    from bazaar.spec import stands

    known = stands.names()
    if isinstance(value, str) and value in known:
        return value
    near = values.meant(value, known) if isinstance(value, str) else ""
    there = near or " There are: " + ", ".join(known)
    raise ValueError(f"there is no stand {values.show(value)}.{there}")


def _sites(value: Any) -> str | tuple[str, ...]:
    if value == "all":
        return "all"
    if isinstance(value, list | tuple) and value:
        return list_of(values.label, "sites")(value)
    if isinstance(value, str):
        raise ValueError(f"{values.show(value)} is neither 'all' nor a list of sites' names")
    raise ValueError(f"{values.show(value)} is not 'all' or a list of at least one site's name")


def _nearest(value: Any) -> bool | str:
    return value if isinstance(value, bool) else values.label(value)


def _url_path(value: Any) -> str:
    checked = values.line(value)
    if not checked.startswith("/") or any(c.isspace() for c in checked):
        raise ValueError(f"{values.show(value)} is not the path of a URL, such as /health")
    return checked


def _user(value: Any) -> str:
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    import re

    if isinstance(written, str) and re.fullmatch(USER_PATTERN, written):
        return written
    raise ValueError(f"{values.show(value)} is no user: a name, or UID or UID:GID")


USER_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?"

_DURATION = {
    "anyOf": [
        text_schema(values.DURATION, "500ms", "60s"),
        {"type": "number", "exclusiveMinimum": 0},
    ]
}
_COMMAND = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1},
    ]
}
_PUBLISHED = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 65535},
        text_schema(values.ADDRESS_AND_PORT, "0.0.0.0:8080"),
    ]
}

LABEL = Reads(values.label, text_schema(values.LABEL))
TEXT = Reads(values.text, text_schema())
LINE = Reads(values.line, text_schema())
PATH = Reads(host_path, text_schema())
PROGRAM = Reads(values.text, text_schema(None, "BEGIN { exit(); }"))
IMAGE = Reads(values.line, text_schema(None, "deb://bookworm?packages=apache2"))
VARIABLE = Reads(values.variable, text_schema(values.VARIABLE))
URL_PATH = Reads(_url_path, text_schema("^/"))
DURATION = Reads(values.duration, _DURATION)
PROVIDER = Reads(_provider, {"enum": list(PROVIDERS)})
SITE_SUBNET = Reads(values.site_subnet, text_schema(r"/24$", "10.44.1.0/24"))
BAZAAR_SUBNET = Reads(values.bazaar_subnet, text_schema(r"/16$", "10.44.0.0/16"))
COMMAND = Reads(values.command, _COMMAND)
PORT = Reads(values.port, {"type": "integer", "minimum": 1, "maximum": 65535})
REPLICAS = _whole(1, 100)
PIDS = _whole(1, 1 << 22)
BURST = _whole(1, 100_000_000)
MEMORY = Reads(
    values.memory,
    {"anyOf": [text_schema(values.MEMORY, "256M"), {"type": "integer", "minimum": 1}]},
)
CORES = Reads(values.cores, {"type": "number", "exclusiveMinimum": 0, "maximum": 4096})
RATE = Reads(
    values.rate, {"anyOf": [text_schema(values.RATE, "2000/s"), {"type": "integer", "minimum": 1}]}
)
ALLOW = Reads(
    list_of(values.allowed, "addresses and networks"), {"type": "array", "items": text_schema()}
)
PUBLISH = Reads(
    list_of(values.published, "ports of the host", one=True),
    {"anyOf": [*_PUBLISHED["anyOf"], {"type": "array", "items": _PUBLISHED}]},
)
INSIDE = Reads(values.inside, text_schema("^/"))
_USER = {"anyOf": [text_schema(f"^{USER_PATTERN}$"), {"type": "integer", "minimum": 0}]}
USER = Reads(_user, _USER)
NEAREST = Reads(_nearest, {"anyOf": [{"type": "boolean"}, text_schema(values.LABEL)]})
SITES = Reads(
    _sites,
    {
        "anyOf": [
            {"const": "all"},
            {"type": "array", "items": text_schema(values.LABEL), "minItems": 1},
        ]
    },
)


def _stands() -> list[str]:
    from bazaar.spec import stands

    return list(stands.names())


STAND = Reads(_stand, {"enum": _stands()})  # its schema names them all
