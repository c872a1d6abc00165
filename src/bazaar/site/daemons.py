"""Long-lived programs of a bazaar (HAProxy, dnsmasq): found, verified, ended.

A pid file only says where to look first. What counts is a process whose arguments hold our
folder: it is found even when we were killed before its pid was written.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from bazaar.errors import NetworkError
from bazaar.host import namespaces, processes
from bazaar.host.processes import Identity


def find(program: str, marker: str, pid_file: Path) -> Identity | None:
    """The program's first process that has ``marker`` among its arguments."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text()[:20])
        if _is(pid, program, marker):
            return processes.identify(pid)
    found = find_all(program, marker)
    return found[0] if found else None


def find_all(program: str, marker: str) -> list[Identity]:
    """All such processes, parents before their children."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    ours = {pid for pid in pids if _is(pid, program, marker)}
    ordered = sorted(ours, key=lambda pid: (_parent(pid) in ours, pid))
    return [one for pid in ordered if (one := processes.identify(pid))]


def stop(program: str, marker: str, timeout: float = 5.0) -> None:
    """End every such process, and see that none is left; NetworkError when one stays."""
    for _ in range(3):  # one that was just forking its successor leaves it to the next round
        found = find_all(program, marker)
        if not found:
            return
        for one in found:
            processes.terminate(one, timeout, signal.SIGTERM)
    if left := find_all(program, marker):
        raise NetworkError(f"{program} (pid {left[0].pid}) does not end, not even by SIGKILL")


def inside(process: Identity, namespace: str) -> bool:
    """Whether a process lives in the network namespace that has this name now."""
    try:
        own = os.stat(f"/proc/{process.pid}/ns/net").st_ino
        return own == namespaces.identity(namespace) and processes.alive(process)
    except (OSError, NetworkError):
        return False


def _is(pid: int, program: str, marker: str) -> bool:
    words = processes.command_line(pid)
    return bool(words) and os.path.basename(words[0]) == program and marker in words


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(stat[stat.rindex(")") + 2 :].split()[1])
    return 0
