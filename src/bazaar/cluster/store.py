"""What is remembered of clusters: their description, and their keys, sealed.

Everything else is asked of the machines.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from bazaar.cluster import pki, rotation, vault
from bazaar.cluster.description import Cluster, Node
from bazaar.errors import MissingError, StateError, UsageError
from bazaar.host import files, paths
from bazaar.model.machine import Machine
from bazaar.model.record import names as fields

_MAKE = "`bazaar cluster apply --local 1` makes one here, --machines elsewhere"


def folder(name: str) -> Path:
    """Everything of one cluster."""
    return paths.state() / "clusters" / name


def names() -> list[str]:
    """The clusters that are known."""
    try:
        found = [entry.name for entry in (paths.state() / "clusters").iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if (folder(name) / "cluster.json").exists())


def the_one(name: str | None) -> str:
    """The cluster meant: the one named, else the only one. Raises UsageError, MissingError."""
    known = names()
    if name is not None:
        if name not in known:
            listed = f"those known are {', '.join(known)}" if known else "none is known"
            raise MissingError(f"there is no cluster {name}: {listed}", hint=_MAKE)
        return name
    if len(known) == 1:
        return known[0]
    if not known:
        raise MissingError("there is no cluster", hint=_MAKE)
    raise UsageError(f"which cluster? {', '.join(known)}", hint="name it by --name")


@contextlib.contextmanager
def lock(name: str, purpose: str) -> Generator[None]:
    """Nobody else changes the cluster meanwhile. Of one that did not come to be nothing is left."""
    path = paths.state() / "clusters" / f"{name}.lock"
    with files.lock(path, purpose):
        try:
            yield
        finally:
            if not folder(name).exists():
                path.unlink(missing_ok=True)


def save(cluster: Cluster, *, local: bool) -> None:
    """Remember a cluster's description; ``local``: its machines were made here for it."""
    files.write_json(
        folder(cluster.name) / "cluster.json", {"local": local, "cluster": _plain(cluster)}
    )


def load(name: str) -> tuple[Cluster, bool] | None:
    """A cluster as it was last asked for, and whether its machines are local ones of its own."""
    stored = files.read_json(folder(name) / "cluster.json")
    if stored is None:
        return None
    try:
        values = dict(stored["cluster"])
        values["nodes"] = tuple(_node(one) for one in values["nodes"])
        return Cluster(**values), bool(stored["local"])
    except (KeyError, TypeError) as error:
        raise StateError(f"{folder(name)}: its description is unreadable: {error}") from error


def forget(name: str) -> None:
    """Remove all that is remembered of a cluster."""
    shutil.rmtree(folder(name), ignore_errors=True)


def keys(cluster: Cluster, *, store: bool) -> Mapping[str, Any]:
    """The cluster's authorities and certificates; what is missing or ends soon is issued.

    With ``store`` what is new is sealed and kept; without, it is but for looking.
    """
    path = folder(cluster.name) / "keys.json"
    held = vault.unseal(path) or {}
    now = pki.renewed(held, cluster, time.time())
    if store and now != held:
        vault.seal(path, now)
    return now


def drop_pairs(cluster: Cluster) -> None:
    """Forget all certificates but the authorities': the next ones are issued anew."""
    path = folder(cluster.name) / "keys.json"
    held = vault.unseal(path) or {}
    vault.seal(path, pki.renewed({**held, "pairs": {}}, cluster, time.time()))


def turn(cluster: Cluster) -> str:
    """Take the rotation of the authorities one step further; which one it is at then."""
    path = folder(cluster.name) / "keys.json"
    turned = rotation.turned(vault.unseal(path) or pki.renewed({}, cluster, time.time()))
    vault.seal(path, pki.renewed(turned, cluster, time.time()))
    return rotation.stage(turned)


def _plain(value: Any) -> Any:
    if isinstance(value, Cluster | Node | Machine):
        return {name: _plain(getattr(value, name)) for name in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _node(values: Mapping[str, Any]) -> Node:
    plain: dict[str, Any] = {**values, "machine": _machine(values["machine"])}
    return Node(**plain)


def _machine(values: Mapping[str, Any]) -> Machine:
    jump = values.get("jump")
    plain: dict[str, Any] = {**values, "jump": _machine(jump) if jump else None}
    return Machine(**plain)
