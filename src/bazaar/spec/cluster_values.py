"""Reads the values of a cluster's description. Needs no pydantic: command lines use it, too."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

from bazaar.spec import values

_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"
USER = f"^{_USER}$"
PLACE = re.compile(
    rf"(?:(?P<name>[^=@:]+)=)?(?:(?P<user>{_USER})@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?"
)
VERSION = r"^[0-9]+\.[0-9]+\.[0-9]+$"
DOMAIN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
TAINT = r"^[A-Za-z0-9][A-Za-z0-9._/-]*(=[A-Za-z0-9._-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$"
LABEL_KEY = r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
COMPONENTS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy"),
)


def node_name(host: str) -> str:
    """A node's name by where it is: an address is no name in Kubernetes."""
    try:
        return f"ip-{str(IPv4Address(host)).replace('.', '-')}"
    except ValueError:
        return host.partition(".")[0].lower()


def place(value: Any) -> dict[str, Any]:
    """``[NAME=][USER@]ADDRESS[:PORT]`` in its parts."""
    match = PLACE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"{values.show(value)} names no machine: [NAME=][USER@]ADDRESS[:PORT], as 10.0.0.1"
        )
    found: dict[str, Any] = {"address": match["host"]}
    if match["name"]:
        found["name"] = match["name"]
    if match["user"]:
        found["user"] = match["user"]
    if match["port"]:
        found["port"] = values.port(int(match["port"]))
    return found


def address(value: Any) -> str:
    """An address or a host's name, alone."""
    if set(place(value)) == {"address"}:
        return value.strip()
    raise ValueError(f"{values.show(value)} is not an address or a host's name alone")


def version(value: Any) -> str:
    """A version of Kubernetes, ``1.36.3``."""
    if isinstance(value, str) and re.fullmatch(VERSION, value):
        return value
    raise ValueError(f"{values.show(value)} is not a version such as '1.36.3' (in quotes)")


def domain(value: Any) -> str:
    """A DNS domain, ``cluster.local``."""
    if isinstance(value, str) and re.fullmatch(DOMAIN, value) and len(value) < 254:
        return value
    raise ValueError(f"{values.show(value)} is not a domain such as cluster.local")


def user(value: Any) -> str:
    """A user's name there."""
    if isinstance(value, str) and re.fullmatch(USER, value):
        return value
    raise ValueError(f"{values.show(value)} is no user's name")


def truth(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"{values.show(value)} is not true or false")


def taint(value: Any) -> str:
    """A taint as kubectl has it, ``key=value:NoSchedule``."""
    if isinstance(value, str) and re.fullmatch(TAINT, value):
        return value
    raise ValueError(
        f"{values.show(value)} is no taint: KEY[=VALUE]:EFFECT, the effect NoSchedule, "
        "PreferNoSchedule or NoExecute"
    )


def label(key: str, value: Any) -> tuple[str, str]:
    """One label of a node: a name and a value as Kubernetes takes them."""
    if not re.fullmatch(LABEL_KEY, key):
        raise ValueError(f"{values.show(key)} is no label's name, such as example.com/disk")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, dict | list | tuple) or not re.fullmatch(LABEL_VALUE, text):
        raise ValueError(f"{values.show(value)} is no label's value: letters, digits, '-._'")
    return key, text


def url(value: Any) -> str:
    """An address of http or https."""
    checked = values.line(value)
    if re.fullmatch(r"https?://[^\s/@\"\\]+(/[^\s\"\\]*)?", checked):
        return checked
    raise ValueError(f"{values.show(value)} is not an address such as http://10.0.0.1:3128")


def registry(value: str) -> str:
    """A registry's host, with its port where it has one; ``_default`` is all others."""
    if re.fullmatch(r"_default|[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", value):
        return value
    raise ValueError(f"{values.show(value)} is no registry's host, such as docker.io")


def arguments(key: str, value: Any) -> tuple[str, dict[str, str]]:
    """A component's further flags, by their names without dashes."""
    if key not in COMPONENTS:
        near = values.meant(key, COMPONENTS) or f" There are: {', '.join(COMPONENTS)}"
        raise ValueError(f"there is no component {values.show(key)}.{near}")
    if not isinstance(value, dict):
        raise ValueError(f"{values.show(value)} is not a mapping of flags and their values")
    found: dict[str, str] = {}
    for name, one in value.items():  # pyright: ignore[reportUnknownVariableType]
        if not re.fullmatch(r"[a-z][a-z0-9-]*", str(name)):  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"{values.show(name)} is no flag's name, without its dashes")
        text = str(one).lower() if isinstance(one, bool) else str(one)  # pyright: ignore[reportUnknownArgumentType]
        # It becomes a word of a unit file, in which these would mean something.
        if isinstance(one, dict | list) or re.search(r"[\s\"'\\%$]", text):
            raise ValueError(f"{values.show(one)}: a value without spaces, quotes, '\\', '%', '$'")
        found[str(name)] = text  # pyright: ignore[reportUnknownArgumentType]
    return key, found


def no_proxy(value: Any) -> str:
    """A host, a domain or a network that is reached without the proxy."""
    checked = values.line(value)
    if re.fullmatch(r"[A-Za-z0-9.:/*_-]+", checked):
        return checked
    raise ValueError(f"{values.show(value)} is not a host, a domain or a network")
