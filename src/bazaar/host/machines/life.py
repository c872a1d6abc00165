"""Making local machines, telling how they are, stopping and starting them, taking them away.

A machine is finished when its ``machine.json`` is written, the last step. What was interrupted
before is taken away by whoever comes next, by what is there and not by what is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Collection, Generator, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from bazaar.errors import BazaarError, KernelError, MachineError, MissingError, UnreachableError
from bazaar.host import cgroups, commands, files, mounts, paths, resolvers
from bazaar.host.background import Background
from bazaar.host.machines import base, network, nspawn, places
from bazaar.host.machines.base import Progress
from bazaar.host.machines.places import LocalMachine
from bazaar.model.machine import Machine

INOTIFY_INSTANCES = 8192
BOOT_SECONDS = 90.0  # many boot at once on few processors


def prepare(packages: Sequence[str], progress: Progress) -> bool:
    """Make the root that machines with these packages share; False: it was there already.

    `create` does so, too; this is for who wants to tell of it. Raises as that does.
    """
    if base.place(packages).is_dir():
        return False
    _needs()  # before the minute that it takes
    base.make(packages, progress)
    return True


def create(
    count: int,
    progress: Progress,
    *,
    packages: Sequence[str] = (),
    binds: Mapping[Path, str] | None = None,
    owner: str = "",
) -> list[LocalMachine]:
    """Make and boot ``count`` machines, named by the next free of m1, m2, …; wait for their SSH.

    ``packages`` are in their root besides, ``binds`` are folders of this machine shown to them
    read-only, ``owner`` is whom they are made for (`owned`). What was left unfinished is taken
    away first. Raises MissingError for what this machine lacks, MachineError where one does not
    come up: the others do.
    """
    _needs()
    _enough_inotify()
    root = base.make(packages, progress)
    with _changing("machines create"):
        for name in _unfinished():
            progress(f"{name}: taking away what was left unfinished")
            _remove(name)
        made = _Making(root, network.make(), binds or {}, owner)
        try:
            return made.run(_free_names(count), progress)
        except BaseException:
            for name in _unfinished():
                with contextlib.suppress(BazaarError):  # the next one tries again
                    _remove(name)
            raise


def listing() -> list[LocalMachine]:
    """Every machine of this state folder, those that ended or were never finished too."""
    found: list[LocalMachine] = []
    for name in sorted(_traces(), key=places.number):
        about = places.stored(name)
        if about is None:
            found.append(LocalMachine(places.reached_at(name, ""), "unfinished"))
            continue
        status = "running" if nspawn.running(name) else "stopped"
        found.append(LocalMachine(places.reached_at(name, about[0]), status, *about[1:]))
    return found


def owned(owner: str) -> list[str]:
    """The names of the finished machines that were made for ``owner``."""
    return [name for name in places.names() if places.stored(name) and places.owner(name) == owner]


def stop(names: Collection[str], progress: Progress, *, now: bool = False) -> list[str]:
    """Shut machines down, what they hold stays; ``now``: as if their power went. Those that ran."""
    _root()
    with _changing("machines stop"):
        running = [name for name in _finished(names) if nspawn.running(name)]
        progress(f"stopping {', '.join(running)}" if running else "none of them runs")
        if not now:
            nspawn.shut_down(running)
        for work in [Background(lambda name=name: nspawn.kill(name)) for name in running]:
            work.wait()
    return running


def start(names: Collection[str], progress: Progress) -> list[str]:
    """Boot machines that ended and wait for their SSH; the names of those that did not run.

    Raises MachineError where one does not come up.
    """
    _root()
    with _changing("machines start"):
        down = [name for name in _finished(names) if not nspawn.running(name)]
        progress(f"{', '.join(down)}: booting" if down else "all of them run")
        for name in down:
            nspawn.kill(name)  # what is left of the groups it had
            nspawn.start(name, places.binds(name))
        failures = asyncio.run(_all_up(down))
    for name, error in failures.items():
        raise MachineError(f"{name}: {error.message}", hint=error.hint)
    return down


def destroy(names: Collection[str] | None, progress: Progress) -> list[str]:
    """Take machines away with all they hold, None: all of them; the names of those that were.

    Raises MissingError, and does nothing, where one of the names is none of a machine.
    """
    _root()
    with _changing("machines destroy"):
        there = sorted(_traces(), key=places.number)
        _known(names or (), there)
        chosen = there if names is None else [name for name in there if name in names]
        progress(f"taking away {', '.join(chosen)}" if chosen else "looking for machines")
        failures: list[BazaarError] = []
        for work in [Background(lambda name=name: _remove(name)) for name in chosen]:
            try:
                work.wait()
            except BazaarError as error:
                failures.append(error)
        _write_known_hosts()
        if not _traces():
            network.remove()
            shutil.rmtree(places.folder(), ignore_errors=True)
            _lock().unlink(missing_ok=True)
        if failures:
            raise failures[0]
    return chosen


class _Making:
    """Several machines on their way: prepared one after the other, booting at the same time."""

    def __init__(self, base: Path, own: IPv4Network, binds: Mapping[Path, str], owner: str) -> None:
        self.base, self.own, self.binds, self.owner = base, own, binds, owner
        self.began: dict[str, float] = {}
        self.addresses: dict[str, str] = {}
        self.failures: dict[str, BazaarError] = {}

    def run(self, names: list[str], progress: Progress) -> list[LocalMachine]:
        public = _own_key()
        for name in names:
            progress(f"{name}: starting")
            self.began[name] = time.monotonic()
            try:
                self._start(name, public)
            except BazaarError as error:
                self.failures[name] = error
        waiting = [name for name in names if name not in self.failures]
        progress(f"{', '.join(waiting)}: booting")
        asyncio.run(self._wait(waiting))
        for name in self.failures:
            _remove(name)
        _write_known_hosts()
        done = [machine for machine in listing() if machine.machine.name in names]
        if self.failures:
            name, error = next(iter(self.failures.items()))
            others = ", ".join(machine.machine.name for machine in done)
            hint = f"{others}: running; the same again makes the rest" if others else error.hint
            raise MachineError(f"{name}: {error.message}", hint=hint)
        return done

    def _start(self, name: str, public: str) -> None:
        folder = places.folder() / name
        root = _mount_root(self.base, folder)
        self.addresses[name] = network.attach(name, self.own)
        _personalise(root, name, public)
        shutil.copy(root / "etc/ssh/ssh_host_ed25519_key.pub", folder / "host_key.pub")
        places.note(name, self.owner, self.binds)
        # Known before it answers for the first time.
        _write_known_hosts(self.addresses)
        nspawn.start(name, self.binds)

    async def _wait(self, names: list[str]) -> None:
        await asyncio.gather(*(self._ready(name) for name in names))

    async def _ready(self, name: str) -> None:
        address = self.addresses[name]
        if error := await _up(places.reached_at(name, address)):
            self.failures[name] = error
            return
        places.store(name, address, time.monotonic() - self.began[name], time.time())


async def _all_up(names: Sequence[str]) -> dict[str, BazaarError]:
    """Wait until machines that are finished and were started have booted; those that did not."""
    there = {one.machine.name: one.machine for one in listing()}
    errors = await asyncio.gather(*(_up(there[name]) for name in names))
    return {name: error for name, error in zip(names, errors, strict=True) if error}


async def _up(machine: Machine) -> BazaarError | None:
    """Wait until a machine has booted; why it has not."""
    from bazaar.host import remote

    name = machine.name
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            async with remote.connect(machine, timeout=5) as there:
                boot = "systemctl is-system-running --wait || true"
                await there.run(boot, timeout=BOOT_SECONDS, what="booting")
            return None
        except UnreachableError as error:
            if nspawn.running(name) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            why = error.message if nspawn.running(name) else "it ended while it booted"
            return MachineError(f"{why}{_console(name)}")
        except BazaarError as error:
            return error


def _known(names: Collection[str], there: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in there]:
        raise MissingError(
            f"there is no machine {', '.join(unknown)}",
            hint=f"there are {', '.join(there)}" if there else "`bazaar machines list`",
        )


def _finished(names: Collection[str]) -> list[str]:
    """Those of the machines that are named, if all are there and finished."""
    there = [name for name in places.names() if places.stored(name)]
    _known(names, there)
    return [name for name in there if name in names]


def _needs() -> None:
    _root()
    base.needs()
    commands.find("systemd-nspawn", package="systemd-container")
    commands.find("nft", package="nftables")
    commands.find("ip", package="iproute2")
    if not cgroups.complete():
        raise MissingError(
            "control groups cannot be made here: a machine needs some of its own",
            hint="inside a container, /sys/fs/cgroup must be writable",
        )


def _enough_inotify() -> None:
    """Let the kernel hand out inotify instances for all: systemd and kubelet take 20 a machine.

    Its default, 128 for a user, is enough for five. It stays raised: others may have come to
    need it.
    """
    path = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(path.read_text()) < INOTIFY_INSTANCES:
        with contextlib.suppress(OSError):  # where it may not be, there is room for a few
            path.write_text(str(INOTIFY_INSTANCES))


def _root() -> None:
    if os.geteuid() != 0:
        raise MissingError("local machines need root", hint="run it by sudo")


@contextlib.contextmanager
def _changing(purpose: str) -> Generator[None]:
    with files.lock(_lock(), purpose):
        yield


def _lock() -> Path:
    return paths.state() / "machines.lock"


def _traces() -> set[str]:
    """The names of all machines of which anything is there."""
    return {*places.names(), *network.attached(), *nspawn.grouped()}


def _unfinished() -> list[str]:
    return [name for name in _traces() if places.stored(name) is None]


def _free_names(count: int) -> list[str]:
    there = _traces()
    free = [f"m{n}" for n in range(1, places.MOST + 1) if f"m{n}" not in there][:count]
    if len(free) < count:
        raise MachineError(
            f"there can be {places.MOST} machines, and {len(there)} are there",
            hint="`bazaar machines destroy` takes some away",
        )
    return free


def _remove(name: str) -> None:
    """Take away all there is of a machine, however far it came."""
    folder = places.folder() / name
    (folder / "machine.json").unlink(missing_ok=True)  # from here on it is unfinished
    nspawn.kill(name)
    network.detach(name)
    mounts.unmount_below(folder)
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise MachineError(f"{name}: {error.filename}: {error.strerror}") from error


def _own_key() -> str:
    """The public key that all machines let in; the pair is made with the first of them."""
    from bazaar.host import remote

    public = places.key().with_name("key.pub")
    # Written after the private key: where it is, both are.
    if not public.exists():
        return remote.make_key(places.key(), "bazaar machines")
    return public.read_text().strip()


def _mount_root(base: Path, folder: Path) -> Path:
    """A root of its own over the base that all share; a copy where overlays cannot lie there."""
    try:
        for path in (folder, *(folder / name for name in ("upper", "work", "root", "containerd"))):
            path.mkdir(mode=0o755, parents=True)
        places.folder().chmod(0o700)
    except OSError as error:
        raise MachineError(f"{error.filename}: {error.strerror}") from error
    root = folder / "root"
    try:
        mounts.overlay([base], root, upper=folder / "upper", work=folder / "work")
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        commands.run(["cp", "-a", "--reflink=auto", f"{base}/.", root], timeout=300)
    return root


def _personalise(root: Path, name: str, public: str) -> None:
    """What makes the shared root this machine's own."""
    from bazaar.host import remote

    try:
        (root / "etc/hostname").write_text(f"{name}\n")
        (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")
        (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/resolv.conf").write_text(resolvers.resolv_conf())
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{error.filename}: {error.strerror}") from error
    files.write_atomic(root / "root/.ssh/authorized_keys", f"{public}\n")
    remote.make_key(root / "etc/ssh/ssh_host_ed25519_key", name)


def _write_known_hosts(more: Mapping[str, str] | None = None) -> None:
    if not places.folder().exists():
        return
    finished = {name: about[0] for name in places.names() if (about := places.stored(name))}
    places.write_known_hosts({**finished, **(more or {})})


def _console(name: str) -> str:
    """The last lines of a machine's console, for an error."""
    try:
        said = (places.folder() / name / "console").read_text(errors="replace").split("\n")
    except OSError:
        return ""
    lines = [line.strip() for line in said if line.strip()][-5:]
    return "".join(f"\n  {line}" for line in lines)
