"""The host's name servers, for what has a network of its own."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))  # systemd-resolved's


def of_host() -> list[str]:
    """The host's name servers that can be asked from elsewhere than the host itself."""
    return [one for one in listed(file()) if _is_reachable(one)]


def file() -> Path:
    """The host's resolv.conf, or where that names its own loopback alone, what answers there."""
    return next((one for one in _FILES if any(map(_is_reachable, listed(one)))), _FILES[0])


def resolv_conf() -> str:
    """The /etc/resolv.conf of what asks them; resolv.conf(5) takes no more than three."""
    return "".join(f"nameserver {server}\n" for server in of_host()[:3])


def listed(path: Path = _FILES[0]) -> list[str]:
    """The name servers of a resolv.conf(5), which need not be there."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.split() for line in lines)
    return [words[1] for words in pairs if words[:1] == ["nameserver"] and len(words) > 1]


def _is_reachable(server: str) -> bool:
    try:
        return not IPv4Address(server).is_loopback
    except AddressValueError:
        return False
