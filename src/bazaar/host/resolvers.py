"""The host's name servers, for what has a network of its own."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

_SYSTEMD_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


def of_host() -> list[str]:
    """The host's name servers that can be asked from elsewhere than the host itself."""
    for file in (Path("/etc/resolv.conf"), _SYSTEMD_RESOLVED):
        found = [
            words[1]
            for line in (_read(file) or "").splitlines()
            if (words := line.split())[:1] == ["nameserver"] and len(words) > 1
        ]
        usable = [one for one in found if _is_reachable(one)]
        if usable:
            return usable
    return []


def _is_reachable(server: str) -> bool:
    try:
        return not IPv4Address(server).is_loopback
    except AddressValueError:
        return False


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
