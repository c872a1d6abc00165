"""What the namespaces and interfaces of a bazaar are called."""

from __future__ import annotations

import re

from bazaar.errors import NetworkError

UPLINK = "uplink"  # inside the front's namespace: its way to the host

_PART = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
_CONTAINER = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}"


def front_namespace(bazaar: str) -> str:
    """The namespace of the bazaar's front: HAProxy, names and shield live there."""
    if bazaar == "run" or not re.fullmatch(_PART, bazaar):
        why = "`bazaar run` has it" if bazaar == "run" else "letters, digits, '-' and '_' only"
        raise NetworkError(f"a bazaar on this machine cannot be named {bazaar!r}: {why}")
    return f"bz-{bazaar}"


def site_namespace(bazaar: str, site: str) -> str:
    """The namespace of one site."""
    if not re.fullmatch(_PART, site):
        raise NetworkError(f"a site on this machine cannot be named {site!r}")
    return f"{front_namespace(bazaar)}-{site}"


def container_namespace(container_id: str) -> str:
    """The namespace of one container."""
    if not re.fullmatch(_CONTAINER, container_id):
        raise NetworkError(f"{container_id!r} is no container id")
    return f"bz-{container_id}"


def host_name(bazaar: str) -> str:
    """The name the host's own namespace has while a bazaar publishes ports on it."""
    return f"{front_namespace(bazaar)}.host"
