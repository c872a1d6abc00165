"""A machine's processes and control groups: started, found by what runs, ended.

systemd-nspawn is started by a small shell that starts it again when the machine reboots. Both
name the machine's root in their arguments, and all that runs inside is in the machine's groups;
that is how they are found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from bazaar.errors import MachineError
from bazaar.host import cgroups, commands, namespaces, processes
from bazaar.host.machines import places

_REBOOT = 133  # systemd-nspawn(1), with --keep-unit: start it again
_PATIENCE = 15.0  # seconds for processes that were killed to be gone
_SHUT_DOWN = 30.0  # and for a machine to end by itself
_DEVICES = ("/dev/kmsg", "/dev/fuse", "/dev/kvm")  # shown to the machine where they are here

# Arguments: the group it stays in, the groups of the machine, --, and what to run in those.
_KEEPER = f"""
echo $$ >"$1"; shift
while
  sh -ec 'for group; do [ "$group" = -- ] && break; echo $$ >"$group"; shift; done
          shift; exec "$@"' sh "$@"
  [ $? = {_REBOOT} ]
do :; done
"""


def start(name: str, binds: Mapping[Path, str]) -> None:
    """Boot a machine whose root is mounted and whose namespace is made; nobody waits for it."""
    folder, identity = places.folder() / name, places.identity(name)
    keeper, groups = _make_groups(identity)
    command = [
        commands.find("systemd-nspawn", package="systemd-container"),
        "--quiet",
        "--boot",
        "--register=no",  # no systemd need run here
        "--keep-unit",
        f"--machine={identity}",
        f"--hostname={name}",
        _root_word(name),
        f"--network-namespace-path={namespaces.path(identity)}",
        "--capability=all",
        # runc makes keyrings, probes are BPF programs. (@all is no group of systemd 252.)
        "--system-call-filter=@keyring bpf perf_event_open",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=pipe",
        *(f"--bind={device}" for device in _DEVICES if Path(device).exists()),
        # No overlay, as the root is one: containerd lays its own there.
        f"--bind={folder / 'containerd'}:/var/lib/containerd",
        *(f"--bind-ro={source}:{target}" for source, target in binds.items()),
    ]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        # What runs containers mounts, and sets the kernel's network up.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        "SYSTEMD_NSPAWN_LOCK": "0",  # its file would outlive a kill; nobody else knows this root
    }
    with open(folder / "console", "ab") as console:
        subprocess.Popen(
            ["sh", "-c", _KEEPER, "sh", *map(str, [keeper, *groups]), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )


def running(name: str) -> bool:
    """Whether anything of a machine runs: it outlives a nspawn that was killed."""
    return bool(cgroups.processes(places.identity(name)) or _processes(_root_word(name)))


def shut_down(names: Collection[str]) -> None:
    """Have machines end in good order, which takes them a while; those that do not run on."""
    for name in names:
        for pid in _processes(_root_word(name)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)  # systemd-nspawn(1), --kill-signal: it powers off
    deadline = time.monotonic() + _SHUT_DOWN
    while any(map(running, names)) and time.monotonic() < deadline:
        time.sleep(0.1)


def kill(name: str) -> None:
    """End everything of a machine at once, and take its control groups away.

    Raises MachineError when something does not go.
    """
    identity = places.identity(name)
    deadline = time.monotonic() + _PATIENCE
    while found := {*_processes(_root_word(name)), *cgroups.processes(identity)}:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            listed = ", ".join(map(str, sorted(found)))
            raise MachineError(
                f"{name}: these processes do not end: {listed}",
                hint="they wait for a device or a file system; try again later",
            )
        time.sleep(0.02)
    if not cgroups.remove(identity, timeout=deadline - time.monotonic()):
        raise MachineError(
            f"{name}: its control groups, {cgroups.PARENT}/{identity}, do not go",
            hint="what was in them is not quite gone yet; try again later",
        )
    # What nspawn itself removes, unless it is killed.
    with contextlib.suppress(OSError):
        Path("/run/systemd/nspawn/propagate", identity).rmdir()


def grouped() -> list[str]:
    """The machines that have control groups."""
    prefix = places.identity("")
    found = (name.removeprefix(prefix) for name in cgroups.names() if name.startswith(prefix))
    return [name for name in found if places.number(name)]


def _root_word(name: str) -> str:
    return f"--directory={places.folder() / name / 'root'}"


def _processes(word: str) -> list[int]:
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or word not in processes.command_line(int(entry)):
            continue
        if processes.start_time(int(entry)) is not None:  # not a zombie
            found.append(int(entry))
    return found


def _make_groups(identity: str) -> tuple[Path, list[Path]]:
    """The machine's groups, one in every hierarchy: it sees nothing above them.

    What keeps it goes into one of its own, since v2 wants leaves.
    """
    hierarchies = cgroups.find()
    groups: list[Path] = []
    for root in cgroups.roots(hierarchies, every=True):
        group = root / cgroups.PARENT / identity
        try:
            cgroups.make_folder(group)
            for new in (group.parent, group):
                _inherit(new)
        except OSError as error:
            raise MachineError(f"{error.filename or group}: {error.strerror}") from error
        groups.append(group / "cgroup.procs")
    if hierarchies.v2 is None:
        return Path("/dev/null"), groups
    if not hierarchies.v1:
        _delegate(hierarchies.v2)
    keeper = hierarchies.v2 / cgroups.PARENT / identity / "keeper"
    keeper.mkdir(exist_ok=True)
    return keeper / "cgroup.procs", groups


def _inherit(group: Path) -> None:
    """A new group of the v1 cpuset takes no process before it has processors and memory."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(FileNotFoundError):
            if not (group / name).read_text().strip():
                (group / name).write_text((group.parent / name).read_text())


def _delegate(root: Path) -> None:
    """Have the v2 controllers that there are in the machine's group too."""
    available = (root / "cgroup.controllers").read_text().split()
    for group in (root, root / cgroups.PARENT):
        for controller in available:
            with contextlib.suppress(OSError):  # one that may not be handed down
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
