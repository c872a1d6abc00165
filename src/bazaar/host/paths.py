"""Where Bazaar keeps things. Everything that lasts stays below two folders."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def state() -> Path:
    """What must survive: ``BAZAAR_STATE``, else ``/var/lib/bazaar`` or the XDG state home."""
    if chosen := os.environ.get("BAZAAR_STATE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/bazaar")
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "bazaar"


def cache() -> Path:
    """What can be made again: ``BAZAAR_CACHE``, else ``/var/cache/bazaar`` or the XDG cache."""
    if chosen := os.environ.get("BAZAAR_CACHE"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/bazaar")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "bazaar"


def settings() -> Path:
    """What is the user's own: ``/etc/bazaar`` or the XDG configuration."""
    if os.geteuid() == 0:
        return Path("/etc/bazaar")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "bazaar"


def close(folder: Path) -> Path:
    """``folder``, which from now on nobody but its owner may enter.

    For what comes out of images and containers: a setuid file in it is root's to whoever gets
    there. Called on every use, since the folder may be older than this rule.
    """
    with contextlib.suppress(FileNotFoundError):
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def locks() -> Path:
    """Locks on what this machine has once, its network: whatever the state folder is."""
    return Path("/run/bazaar")


def bazaar(name: str) -> Path:
    """The state of one bazaar."""
    return state() / "bazaars" / name


def containers() -> Path:
    """One directory a container, named by its id."""
    return state() / "containers"
