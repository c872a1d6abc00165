"""Control groups of both hierarchies: v2 alone, v1, or v1 controllers beside an empty v2.

The hierarchies are found in /proc/self/mountinfo, never assumed. A group has one name,
``bazaar/<container id>``, in the v2 hierarchy (so that the kernel's cgroup id tells
containers apart) and in each v1 hierarchy whose controller limits it.
Kernel documentation: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bazaar.errors import KernelError
from bazaar.host import mounts
from bazaar.model.container import Limits
from bazaar.model.record import field, record

PARENT = "bazaar"
NO_LIMITS = Limits()
LIMITING = ("memory", "cpu", "pids")
PERIOD = 100_000  # microseconds; the kernel's own default period of the CPU bandwidth controller


@record
class Hierarchies:
    """Where this machine's hierarchies are mounted."""

    v2: Path | None
    # controller → mount point; also what is no controller (name=systemd, options): it does no harm
    v1: dict[str, Path] = field(default_factory=dict[str, Path])

    def controllers(self) -> frozenset[str]:
        """The limiting controllers that are there, in either version."""
        found = {name for name in LIMITING if name in self.v1}
        if self.v2 is not None:
            with contextlib.suppress(OSError):
                available = (self.v2 / "cgroup.controllers").read_text().split()
                found |= set(LIMITING) & set(available)
        return frozenset(found)


def find(points: Iterable[mounts.MountPoint] | None = None) -> Hierarchies:
    """The hierarchies mounted here."""
    v2: Path | None = None
    v1: dict[str, Path] = {}
    for point in mounts.mounted() if points is None else points:
        if point.kind == "cgroup2" and v2 is None:
            v2 = Path(point.target)
        elif point.kind == "cgroup":
            for controller in point.super_options - {"rw", "ro"}:
                v1.setdefault(controller, Path(point.target))
    return Hierarchies(v2, v1)


def writable(hierarchies: Hierarchies | None = None) -> Hierarchies:
    """Those in which groups can be made: a machine in a container may have others read-only."""
    found = hierarchies or find()
    return Hierarchies(
        found.v2 if found.v2 is not None and os.access(found.v2, os.W_OK) else None,
        {name: path for name, path in found.v1.items() if os.access(path, os.W_OK)},
    )


def complete(hierarchies: Hierarchies | None = None) -> bool:
    """Whether groups can be made in every hierarchy, as runc wants to."""
    found = hierarchies or find()
    return writable(found) == found


def problem(limits: Limits = NO_LIMITS, hierarchies: Hierarchies | None = None) -> str | None:
    """Why groups cannot be made, or ``limits`` not be kept, here; None when they can."""
    found = hierarchies or find()
    if found.v2 is None and not found.v1:
        return "no cgroup hierarchy is mounted"
    for root in roots(found):
        if not os.access(root, os.W_OK):
            return f"{root} is read-only"
    wanted = [("memory", limits.memory), ("cpu", limits.cpus), ("pids", limits.pids)]
    missing = [
        name for name, value in wanted if value is not None and name not in found.controllers()
    ]
    return f"no cgroup controller for {', '.join(missing)}" if missing else None


def create(
    name: str, limits: Limits = NO_LIMITS, hierarchies: Hierarchies | None = None
) -> list[Path]:
    """Make the group ``bazaar/<name>`` in every hierarchy that matters and set its limits.

    Returns its directories. Raises KernelError where a directory or a limit is refused;
    nothing is left then.
    """
    found = hierarchies or find()
    folders = [root / PARENT / name for root in roots(found)]
    try:
        for folder in folders:
            make_folder(folder)
        _limit(name, limits, found)
    except OSError as error:
        remove(name, found)
        raise KernelError(
            f"cannot make the control group {PARENT}/{name}: {error.strerror} ({error.filename})",
            errno=error.errno or 0,
            hint="cgroups may be read-only here; `bazaar doctor` says what is missing",
        ) from error
    return folders


def hold(name: str, hierarchies: Hierarchies | None = None) -> None:
    """Make the group's directories in every hierarchy, for somebody else to use.

    What cannot be made is for that one to tell.
    """
    for root in roots(hierarchies or find(), every=True):
        with contextlib.suppress(OSError):
            make_folder(root / PARENT / name)


def make_folder(folder: Path) -> None:
    """Make a group's directory, and those above it."""
    # The last container that leaves takes the parent with it, maybe just now.
    for attempt in range(10):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            if attempt == 9:
                raise
        else:
            return


def _limit(name: str, limits: Limits, found: Hierarchies) -> None:
    quota = None if limits.cpus is None else max(1000, int(limits.cpus * PERIOD))
    if "memory" in found.v1 and limits.memory is not None:
        _write(found.v1["memory"] / PARENT / name / "memory.limit_in_bytes", limits.memory)
    if "cpu" in found.v1 and quota is not None:
        _write(found.v1["cpu"] / PARENT / name / "cpu.cfs_period_us", PERIOD)
        _write(found.v1["cpu"] / PARENT / name / "cpu.cfs_quota_us", quota)
    if "pids" in found.v1 and limits.pids is not None:
        _write(found.v1["pids"] / PARENT / name / "pids.max", limits.pids)
    if found.v2 is None:
        return
    group = found.v2 / PARENT / name
    v2 = {
        "memory": ("memory.max", limits.memory),
        "cpu": ("cpu.max", None if quota is None else f"{quota} {PERIOD}"),
        "pids": ("pids.max", limits.pids),
    }
    wanted = {
        key: entry for key, entry in v2.items() if entry[1] is not None and key not in found.v1
    }
    if not wanted:
        return
    for parent in (found.v2, found.v2 / PARENT):
        _write(parent / "cgroup.subtree_control", " ".join(f"+{key}" for key in wanted))
    for file, value in wanted.values():
        _write(group / file, str(value))
    if limits.memory is not None:
        with contextlib.suppress(OSError):  # one victim is not a stopped container
            _write(group / "memory.oom.group", 1)


def v2_folder(name: str, hierarchies: Hierarchies | None = None) -> Path | None:
    """The group's directory in the v2 hierarchy, whether it exists or not."""
    found = hierarchies or find()
    return None if found.v2 is None else found.v2 / PARENT / name


def add(folders: Iterable[Path], pid: int = 0) -> None:
    """Move a process (0: this one) with all its threads into the group's directories."""
    for folder in folders:
        _write(folder / "cgroup.procs", pid)


def processes(name: str, hierarchies: Hierarchies | None = None) -> list[int]:
    """The pids in the group and those below it, of any hierarchy; none that we cannot see."""
    pids: set[int] = set()
    for folder in _folders(name, hierarchies or find()):
        with contextlib.suppress(OSError):
            pids |= set(map(int, (folder / "cgroup.procs").read_text().split()))
    return sorted(pids - {0})


def memory_events(name: str, hierarchies: Hierarchies | None = None) -> int:
    """How many processes of the group the kernel killed for want of memory."""
    found = hierarchies or find()
    places = (
        [found.v1["memory"] / PARENT / name / "memory.oom_control"] if "memory" in found.v1 else []
    )
    if found.v2 is not None:
        places.append(found.v2 / PARENT / name / "memory.events")
    for place in places:
        with contextlib.suppress(OSError):
            for line in place.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def remove(name: str, hierarchies: Hierarchies | None = None, timeout: float = 1.0) -> bool:
    """Remove the group everywhere, with those below it.

    False when processes kept a directory busy for ``timeout`` s. The parent goes too when no other
    group is left in it.
    """
    gone = True
    deadline = time.monotonic() + timeout
    found = hierarchies or find()
    for folder in _folders(name, found):
        while True:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                gone = False
            break
    for root in roots(found, every=True):
        with contextlib.suppress(OSError):
            (root / PARENT).rmdir()
    return gone


def names(hierarchies: Hierarchies | None = None) -> list[str]:
    """Every group that exists below ``bazaar`` in any hierarchy."""
    found: set[str] = set()
    for root in roots(hierarchies or find(), every=True):
        with contextlib.suppress(OSError):
            found |= {entry.name for entry in (root / PARENT).iterdir() if entry.is_dir()}
    return sorted(found)


def roots(found: Hierarchies, *, every: bool = False) -> list[Path]:
    """Where they are mounted: v2 and those that limit, or ``every`` one."""
    first = [] if found.v2 is None else [found.v2]
    used = [path for name, path in found.v1.items() if every or name in (*LIMITING, "cpuacct")]
    return list(dict.fromkeys([*first, *used]))


def _folders(name: str, found: Hierarchies) -> Iterator[Path]:
    """The group's directories and those below, deepest first.

    Of every hierarchy: runc makes its group in those that limit nothing, too.
    """
    for root in roots(found, every=True):
        for folder, _, _ in os.walk(root / PARENT / name, topdown=False):
            yield Path(folder)


def _write(path: Path, value: int | str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
