"""A bazaar back into plain values and YAML: what `load` reads as the same bazaar."""

from __future__ import annotations

import dataclasses
from typing import Any

from bazaar.spec.cluster import Cluster, Machine, Proxy
from bazaar.spec.model import Bazaar, File, Health, Restart, Secret, Service, Volume


def to_mapping(bazaar: Bazaar) -> dict[str, Any]:
    """The description as a YAML file would hold it, without what is as by default."""
    found: dict[str, Any] = {"bazaar": bazaar.name}
    if bazaar.subnet:
        found["subnet"] = bazaar.subnet
    if bazaar.domain:
        found["domain"] = bazaar.domain
    for kind in ("sites", "services", "probes"):
        parts: Any = getattr(bazaar, kind)
        if parts:
            found[kind] = {part.name: _part(part) for part in parts}
    if bazaar.shield is not None:
        found["shield"] = _part(bazaar.shield)
    return found


def to_yaml(bazaar: Bazaar) -> str:
    """The description as YAML text."""
    import yaml

    return yaml.safe_dump(to_mapping(bazaar), sort_keys=False, allow_unicode=True)


def _part(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(part):
        # A machine stands in a list: no key before it says its name.
        if field.name == "name" and not isinstance(part, Machine):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(part, field.name)
        if value != default:
            found[field.name] = _value(value)
    return found


def _value(value: Any) -> Any:
    if isinstance(value, Volume):
        return f"{value.source}:{value.target}{':ro' if value.read_only else ''}"
    if isinstance(value, File) and value.content is not None:
        return value.content
    if isinstance(value, Secret | File | Cluster | Proxy | Machine | Health | Restart | Service):
        return _part(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value
