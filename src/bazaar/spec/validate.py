"""From plain values to a checked Bazaar, or to every mistake in them at once.

Each part is read on its own, so that a mistake in one hides none in another; what parts say of
one another is checked over those that could be read (`rules`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path as FilePath
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from bazaar.errors import SpecError
from bazaar.model.problem import Problem
from bazaar.spec import cluster_rules, cluster_values, rules, values
from bazaar.spec.cluster import Cluster, Machine, Proxy
from bazaar.spec.model import Bazaar, Health, Probe, Restart, Service, Shield, Site
from bazaar.spec.text import Path, Place, dotted

HINT = "docs/reference/spec.md lists every key; `bazaar schema` is for editors"
KEYS = ("bazaar", "subnet", "domain", "sites", "services", "probes", "shield")
PARTS: dict[str, type[Any]] = {"sites": Site, "services": Service, "probes": Probe}


@dataclass
class Findings:
    """Mistakes so far, and where things stand in the text."""

    file: str = ""
    places: Mapping[Path, Place] = field(default_factory=dict[Path, Place])
    problems: list[Problem] = field(default_factory=list[Problem])
    partial: set[Path] = field(default_factory=set[Path])  # parts read without a wrong field

    def add(self, path: Path, message: str, *, key: bool = False, column: bool = True) -> None:
        """A mistake at ``path``: at its value, or with ``key`` at its key.

        Without ``column`` its line alone is told.
        """
        place, known = None, path
        while place is None and known:
            place = self.places.get(known)
            known = known[:-1] if place is None else known
        place = place or self.places.get(())
        line = at = 0
        if place is not None:
            # What is missing is shown where the part that lacks it begins.
            at_key = key or (known != path and not isinstance(path[-1], int))
            line = place.key_line if at_key else place.line
            at = place.key_column if at_key else place.column
        self.problems.append(Problem(message, self.file, line, at if column else 0, dotted(path)))

    def finish(self) -> None:
        """Raise SpecError if there is a mistake, in the text's order."""
        if self.problems:
            unique = dict.fromkeys(self.problems)
            ordered = sorted(unique, key=lambda problem: (problem.line, problem.column))
            raise SpecError(ordered, hint=HINT)


def build(
    raw: Any,
    findings: Findings,
    folder: FilePath,
    *,
    probes: bool = True,
    secrets: bool = False,
) -> Bazaar:
    """The Bazaar that plain values describe; relative paths are below ``folder``.

    With ``probes`` each probe's program is compiled too, with ``secrets`` each secret must be
    there. Raises SpecError with all mistakes.
    """
    if not isinstance(raw, Mapping):
        said = "the file is empty" if raw is None else f"{values.show(raw)} is not a bazaar"
        findings.add((), f"{said}: begin with 'bazaar: NAME'")
        findings.finish()
    given = cast(Mapping[str, Any], raw)
    for key in given:
        if key not in KEYS:
            near = values.meant(key, KEYS) or f" There are: {', '.join(KEYS)}"
            findings.add((key,), f"there is no key {values.show(key)} here.{near}", key=True)
    if "bazaar" not in given:
        findings.add((), "there is no 'bazaar: NAME', the name of the whole")
    name = _value(values.label, "bazaar", given, findings) or ""
    subnet = _value(values.bazaar_subnet, "subnet", given, findings)
    domain = _value(cluster_values.domain, "domain", given, findings)
    sites = _parts("sites", given.get("sites"), findings)
    if not given.get("sites"):
        sites = {"local": Site("local")}
    services = _parts("services", given.get("services"), findings)
    found_probes = _parts("probes", given.get("probes"), findings)
    shield = None
    if given.get("shield") is not None:
        shield = _read(Shield, given["shield"], ("shield",), findings)
    bazaar = Bazaar(
        name,
        subnet,
        tuple(_absolute(site, folder) for site in sites.values() if site),
        tuple(_absolute(service, folder) for service in services.values() if service),
        tuple(_absolute(probe, folder) for probe in found_probes.values() if probe),
        shield,
        domain,
    )
    rules.check(bazaar, frozenset(sites), frozenset(findings.partial), findings.add)
    cluster_rules.check(bazaar, frozenset(findings.partial), findings.add)
    if probes:
        rules.check_programs(bazaar, findings.add)
    if secrets:
        rules.check_secrets(bazaar, findings.add)
    findings.finish()
    return bazaar


def check(
    bazaar: Bazaar,
    *,
    folder: FilePath | None = None,
    file: str = "",
    probes: bool = True,
    secrets: bool = False,
) -> Bazaar:
    """The normal form of a Bazaar made in Python.

    Relative paths are below ``folder``, by default the working directory. With ``probes``
    each probe's program is compiled too, with ``secrets`` each secret must be there. Raises
    SpecError with all mistakes.
    """
    findings = Findings(file)
    raw = _plain(bazaar, findings)
    folder = (folder or FilePath()).absolute()
    return build(raw, findings, folder, probes=probes, secrets=secrets)


def _value(read: Any, key: str, given: Mapping[str, Any], findings: Findings) -> str | None:
    if given.get(key) is None:
        if key in given and key == "bazaar":
            findings.add((key,), "the bazaar has no name")
        return None
    try:
        return read(given[key])
    except ValueError as error:
        findings.add((key,), str(error))
        return None


def _parts(kind: str, given: Any, findings: Findings) -> dict[str, Any]:
    """The sites, services or probes by name; None where one could not be read."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        findings.add((kind,), f"{values.show(given)} is not a mapping of {kind} by name")
        return {}
    found: dict[str, Any] = {}
    for name, fields in cast(Mapping[str, Any], given).items():
        path: Path = (kind, name)
        try:
            values.label(name)
        except ValueError as error:
            findings.add(path, str(error), key=True)
        part = PARTS[kind]
        if kind == "probes" and isinstance(fields, str):
            fields = {"text": fields}
        if isinstance(fields, Mapping) and "name" in fields:
            findings.add((*path, "name"), "the name stands before the colon", key=True)
            found[name] = None
            continue
        given_fields = cast(Any, {} if fields is None else fields)
        found[name] = _read(part, given_fields, path, findings, name=name)
    return found


def _read(
    part: type[Any], given: Any, path: Path, findings: Findings, *, name: str | None = None
) -> Any:
    known = [field.name for field in dataclasses.fields(part) if field.name != "name"]
    if not isinstance(given, Mapping):
        findings.add(path, f"{values.show(given)} is not a mapping. It has: {', '.join(known)}")
        return None
    # A field that is there but empty is left out; a key is text, whatever it looks like.
    fields: dict[str, Any] = {key: value for key, value in given.items() if value is not None}  # pyright: ignore[reportUnknownVariableType]
    if part is Site and "cluster" in given:
        fields.setdefault("cluster", {})  # an empty one is one
    unknown = [key for key in fields if key not in known]
    for key in unknown:
        del fields[key]
        near = values.meant(key, known) or f" There are: {', '.join(known)}"
        findings.add((*path, key), f"there is no key {values.show(key)} here.{near}", key=True)
    if name is not None:
        # A wrong name is reported where it stands; its part is read all the same.
        fields["name"] = name if _is_label(name) else "wrong"
    try:
        return _adapter(part).validate_python(fields)
    except ValidationError as errors:
        found = errors.errors(include_url=False, include_input=True)
    for error in found:
        place = (*path, *error["loc"])
        findings.add(place, _message(error), key=error["type"] == "unexpected_keyword_argument")
    # The rest is read without the wrong fields, so that its own mistakes are found too.
    findings.partial.add(path)
    wrong = {error["loc"][0] for error in found if error["loc"]}
    try:
        return _adapter(part).validate_python({k: v for k, v in fields.items() if k not in wrong})
    except ValidationError:
        return None


def _is_label(name: str) -> bool:
    try:
        return bool(values.label(name))
    except ValueError:
        return False


@cache
def _adapter(part: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(part)


NESTED: dict[str, type[Any]] = {
    "health": Health,
    "restart": Restart,
    "shield": Shield,
    "cluster": Cluster,
    "proxy": Proxy,
}


def _message(error: Any) -> str:
    """A mistake that pydantic itself found, in our words."""
    place = [part for part in error["loc"] if isinstance(part, str)]
    nested = next((NESTED[part] for part in reversed(place) if part in NESTED), None)
    known = [field.name for field in dataclasses.fields(nested)] if nested else []
    if error["type"] == "value":
        return str(error["msg"])
    if error["type"] == "unexpected_keyword_argument":
        near = values.meant(place[-1], known) or f" There are: {', '.join(known)}"
        return f"there is no key {values.show(place[-1])} here.{near}"
    if error["type"] in ("dataclass_type", "dataclass_exact_type"):
        return f"{values.show(error['input'])} is not a mapping. It has: {', '.join(known)}"
    return f"{values.show(error['input'])}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _absolute(part: Any, folder: FilePath) -> Any:
    """``part`` with every path of the host made absolute, seen from the description's folder."""
    changes: dict[str, Any] = {}
    for name in ("certificate", "file"):
        if value := getattr(part, name, None):
            changes[name] = _below(folder, value)
    if isinstance(part, Service):
        changes["environment"] = {
            key: _absolute_item(v, folder) for key, v in part.environment.items()
        }
        changes["files"] = {key: _absolute_item(value, folder) for key, value in part.files.items()}
        for scheme in ("dir:", "oci:"):
            if part.image and part.image.startswith(scheme):
                changes["image"] = scheme + _below(folder, part.image.removeprefix(scheme))
    if isinstance(part, Site):
        changes |= _absolute_site(part, folder)
    return dataclasses.replace(part, **changes) if changes else part


def _absolute_site(site: Site, folder: FilePath) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if site.cluster is not None and site.cluster.manifests:
        paths = tuple(_below(folder, path) for path in site.cluster.manifests)
        changes["cluster"] = dataclasses.replace(site.cluster, manifests=paths)
    if isinstance(site.machines, tuple):
        found = [_absolute_machine(cast(Machine, one), folder) for one in site.machines]
        changes["machines"] = tuple(found)
    return changes


def _absolute_machine(machine: Machine, folder: FilePath) -> Machine:
    changes: dict[str, Any] = {}
    for name in ("key", "known_hosts"):
        if value := getattr(machine, name):
            changes[name] = _below(folder, value)
    if machine.jump:
        changes["jump"] = _absolute_machine(machine.jump, folder)
    return dataclasses.replace(machine, **changes) if changes else machine


def _absolute_item(item: Any, folder: FilePath) -> Any:
    if path := getattr(item, "file", None):
        return dataclasses.replace(item, file=_below(folder, path))
    return item


def _below(folder: FilePath, path: str) -> str:
    import os.path

    return os.path.normpath(folder / FilePath(path).expanduser())


def _plain(bazaar: Bazaar, findings: Findings) -> dict[str, Any]:
    """The values of a Bazaar made in Python, as a YAML file would give them."""
    raw: dict[str, Any] = {"bazaar": bazaar.name, "subnet": bazaar.subnet}
    raw["domain"] = bazaar.domain
    for kind, part in PARTS.items():
        found: dict[str, Any] = {}
        given: Any = getattr(bazaar, kind)
        if not isinstance(given, list | tuple):
            findings.add((kind,), f"{values.show(given)} is not a list of {part.__name__}")
            continue
        for index, item in enumerate(cast(list[Any], given)):
            if not isinstance(item, part):
                findings.add((kind, index), f"{values.show(item)} is no {part.__name__}")
                continue
            name = str(item.name)
            if name in found:
                findings.add((kind, name), f"there are two {kind} of this name")
            found[name] = _fields(item, "name")
            if part is Site and item.cluster is None:
                del found[name]["cluster"]
        raw[kind] = found
    shield: Any = bazaar.shield
    raw["shield"] = _fields(shield) if isinstance(shield, Shield) else shield
    return raw


def _fields(part: Any, *without: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field_ in dataclasses.fields(part):
        value = getattr(part, field_.name)
        nested = isinstance(value, Health | Restart | Cluster | Proxy)
        if field_.name not in without:
            found[field_.name] = _fields(value) if nested else value
    return found
