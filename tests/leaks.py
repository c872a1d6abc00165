"""What tests could leave behind on a machine: read before and after, and compared."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

PROGRAMS = (
    "runsc",
    "runc",
    "haproxy",
    "dnsmasq",
    "conmon",
    "bpftrace",
    "systemd-nspawn",
    "docker-registry",
)


def snapshot() -> dict[str, frozenset[str]]:
    """Everything of the kinds Bazaar makes that exists now, by kind."""
    return {
        "namespace": _names("/run/netns"),
        "mount": _mounts(),
        "pin": _below("/sys/fs/bpf"),
        "cgroup": frozenset().union(*(_below(str(root), files=False) for root in _cgroup_roots())),
        "interface": _names("/sys/class/net"),
        "nftables table": _tables(),
        "process": _processes(),
    }


def left(before: dict[str, frozenset[str]], patience: float = 5.0) -> list[str]:
    """What is there now and was not before; kernel clean-up gets ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        now = snapshot()
        found = [
            f"{kind} {name}"
            for kind in now
            for name in sorted(now[kind] - before.get(kind, frozenset()))
        ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()


def _below(folder: str, *, files: bool = True) -> frozenset[str]:
    """Everything below ``folder``/bazaar; control groups are folders whose files do not count."""
    found: set[str] = set()
    for root, folders, names in os.walk(os.path.join(folder, "bazaar")):
        found |= {os.path.join(root, name) for name in [*folders, *(names if files else ())]}
    return frozenset(found)


def _cgroup_roots() -> list[Path]:
    roots: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        if rest.startswith("cgroup"):
            roots.append(Path(mount.split()[4]))
    return roots


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = ("bazaar", "/run/netns/")
    return frozenset(
        line.split()[4] for line in lines if any(word in line.split()[4] for word in ours)
    )


def _tables() -> frozenset[str]:
    try:
        listing = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return frozenset()
    return frozenset(line for line in listing.stdout.splitlines() if "bazaar" in line)


def _processes() -> frozenset[str]:
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = os.path.basename(words[0])
        if name.startswith(PROGRAMS) or "supervise" in words:
            found.add(f"{entry.name} {' '.join(words)[:120]}")
    return frozenset(found)
