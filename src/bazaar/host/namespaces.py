"""Named network namespaces, as `ip netns` lists them, and the interfaces inside.

A namespace gets its name last, when all inside it is set up: one that has a name is whole,
and one that was interrupted disappears with the process that was making it; but for those
begun `bare`. Each carries a
mark (the alias of its loopback interface) that says what it is, for whoever cleans up.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from bazaar.errors import CommandError, KernelError, NetworkError
from bazaar.host import commands
from bazaar.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipaddress import IPv4Address

FOLDER = Path("/run/netns")  # iproute2's; /var/run is a link to /run

# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 0x100000
_MNT_DETACH = 2

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,200}"
_libc = ctypes.CDLL(None, use_errno=True)


def path(name: str) -> Path:
    """Where the namespace ``name`` is mounted, whether it exists or not."""
    if not re.fullmatch(_NAME, name):
        raise NetworkError(f"{name!r} cannot name a network namespace")
    return FOLDER / name


def exists(name: str) -> bool:
    """Whether ``name`` is a network namespace now."""
    return _identity(path(name)) is not None


def identity(name: str) -> int:
    """The inode number of a namespace: another one under the same name has another."""
    found = _identity(path(name))
    if found is None:
        raise NetworkError(f"there is no network namespace {name}")
    return found


def names(prefix: str = "") -> list[str]:
    """All named network namespaces that begin with ``prefix``, sorted."""
    return [name for name in entries(prefix) if exists(name)]


def entries(prefix: str = "") -> list[str]:
    """As `names`, and the bare files that an interruption can leave, which are none yet."""
    try:
        found = [entry.name for entry in FOLDER.iterdir() if entry.name.startswith(prefix)]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if re.fullmatch(_NAME, name))


def create(
    name: str, *, mark: str = "", lines: Sequence[str] = (), sysctls: Sequence[tuple[str, str]] = ()
) -> bool:
    """Make the namespace ``name``; False when there is one already.

    Before it gets its name, ``sysctls`` are written in it, its loopback goes up with
    ``mark`` as its alias, and the ``ip`` commands of ``lines`` run in it.
    """
    if exists(name):
        return False

    def make() -> None:
        _unshare(name)
        _set_up(mark, lines, sysctls)
        _mount("/proc/thread-self/ns/net", name)

    aside(make)
    return True


def create_bare(name: str) -> None:
    """Make the namespace ``name``, in the place of one there may be, with nothing `set_up` in it.

    It is for the caller to clear away what an interruption leaves. For a process with one
    thread, which is in the namespace for a moment.
    """
    with _own() as back:
        _unshare(name)
        try:
            attach(name)
        finally:
            _setns(back, "the network namespace it came from")


def set_up(
    name: str, *, mark: str, lines: Sequence[str], sysctls: Sequence[tuple[str, str]]
) -> None:
    """What `create` does inside a namespace, for one begun by `create_bare`."""

    def work() -> None:
        with enter(name):
            _set_up(mark, lines, sysctls)

    aside(work)  # our own process stays where it is, for the commands that name it


def _unshare(name: str) -> None:
    _check(_libc.unshare(_CLONE_NEWNET), f"cannot make the network namespace {name}")


def _set_up(mark: str, lines: Sequence[str], sysctls: Sequence[tuple[str, str]]) -> None:
    for key, value in sysctls:
        sysctl(key, value)
    batch([f'link set lo up alias "{_plain(mark)}"' if mark else "link set lo up", *lines])


def attach(name: str) -> None:
    """Give the namespace the caller is in the name ``name``; a name it has already is kept."""
    if _identity(path(name)) != os.stat("/proc/thread-self/ns/net").st_ino:
        delete(name)
        _mount("/proc/thread-self/ns/net", name)


def delete(name: str, *, bare: bool = False) -> bool:
    """Take a namespace's name away (``bare``: a file that is none); False when there was none.

    The kernel clears the namespace away soon after, when no process is left in it.
    """
    target = path(name)
    found = False
    if not target.exists():
        return found
    with _locked_folder():  # not between another's making of the file and its mount on it
        if bare and exists(name):
            return found
        while _libc.umount2(os.fsencode(target), _MNT_DETACH) == 0:
            found = True
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
            found = True
    return found


def tidy() -> None:
    """Take away the folder of namespaces, itself a mount, when none is left in it."""
    with contextlib.suppress(OSError), _locked_folder():
        if not any(FOLDER.iterdir()):
            while _libc.umount2(os.fsencode(FOLDER), _MNT_DETACH) == 0:
                pass
            FOLDER.rmdir()


@contextlib.contextmanager
def enter(name: str | None) -> Generator[None]:
    """Be in the namespace ``name`` (None: stay): the calling thread only, and what it starts."""
    if name is None:
        yield
        return
    try:
        target = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NetworkError(f"there is no network namespace {name}") from None
    try:
        with _own() as back:
            _setns(target, f"the network namespace {name}")
            try:
                yield
            finally:
                _setns(back, "the network namespace it came from")
    finally:
        os.close(target)


def aside(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread of its own, which may leave its namespaces for good, and wait."""
    import threading

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, name="aside")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def batch(lines: Sequence[str], namespace: str | None = None, *, timeout: float = 20.0) -> None:
    """Run several ``ip`` commands in one process, stopping at the first that fails."""
    if not lines:
        return
    arguments = ["ip", *_in(namespace), "-batch", "-"]
    try:
        commands.run(arguments, text="\n".join(lines) + "\n", timeout=timeout, package="iproute2")
    except CommandError as error:
        raise _network_error(error, lines, namespace) from error


def query(line: str, namespace: str | None = None) -> list[dict[str, Any]]:
    """What ``ip -json`` answers, e.g. to ``link show``."""
    return queries([line], namespace)[0]


def queries(lines: Sequence[str], namespace: str | None = None) -> list[list[dict[str, Any]]]:
    """The answers to several questions, asked in one process."""
    arguments = ["ip", *_in(namespace), "-json", "-batch", "-"]
    try:
        finished = commands.run(arguments, text="\n".join(lines) + "\n", package="iproute2")
    except CommandError as error:
        raise _network_error(error, lines, namespace) from error
    # iproute2 leaves {} for what it filtered out.
    documents, rest = list[list[dict[str, Any]]](), finished.output.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    if len(documents) != len(lines):
        raise NetworkError(f"ip answered {len(documents)} of {len(lines)} questions")
    return [[entry for entry in document if entry] for document in documents]


def links(namespace: str | None = None) -> dict[str, dict[str, Any]]:
    """All interfaces by name, each with its alias and its addresses (``addr_info``)."""
    return _joined(*queries(["link show", "address show"], namespace))


def links_and_routes() -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The host's `links` and the routes of all its tables, read by one process."""
    plain, addressed, routes = queries(["link show", "address show", "route show table all"])
    return _joined(plain, addressed), routes


def _joined(
    plain: list[dict[str, Any]], addressed: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    found = {str(link["ifname"]): link for link in plain}
    for link in addressed:
        found.setdefault(str(link["ifname"]), {}).update(link)
    return found


def interface_exists(name: str, namespace: str | None = None) -> bool:
    """Whether there is an interface ``name``."""
    with enter(namespace):
        # As socket.if_nametoindex, whose module takes 10 ms to import.
        return _libc.if_nametoindex(os.fsencode(name)) > 0


def remove_interface(name: str, namespace: str | None = None) -> bool:
    """Delete an interface (a veth takes its peer along); False when there was none."""
    if not interface_exists(name, namespace):
        return False
    try:
        batch([f"link delete {name}"], namespace)
    except NetworkError:
        if interface_exists(name, namespace):  # not merely gone meanwhile
            raise
    return True


def move_interface(name: str, target: str, *, rename: str = "", source: str | None = None) -> None:
    """Move an interface into the namespace ``target``; it arrives down, without addresses."""
    identity(target)
    called = f" name {rename}" if rename else ""
    batch([f"link set {name} netns {target}{called}"], source)


def veth(name: str, peer: str, peer_namespace: str, *, options: str = "") -> str:
    """The ``ip`` command for a veth pair whose other end appears inside ``peer_namespace``."""
    tail = f" {options}" if options else ""
    return f"link add {name} up type veth peer name {peer}{tail} netns {peer_namespace}"


def interface_name(*parts: str) -> str:
    """A name of at most 15 characters, always the same for the same parts."""
    import hashlib

    return "bz" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:13]


def hardware_address(address: IPv4Address) -> str:
    """A locally administered MAC address made from an IPv4 address."""
    return "02:62:" + ":".join(f"{byte:02x}" for byte in address.packed)


def sysctl(key: str, value: str, namespace: str | None = None) -> None:
    """Set e.g. ``net.ipv4.ip_forward``; what has the value already is not written."""
    with enter(namespace):
        file = _sysctl_file(key)
        if "ipv6" in key and not Path("/proc/sys/net/ipv6").exists():
            return  # a kernel without IPv6 needs no telling
        try:
            if file.read_text().strip() != value:
                file.write_text(value)
        except OSError as error:
            raise NetworkError(
                f"sysctl {key} cannot be set to {value}: {error.strerror}",
                hint="inside a container, /proc/sys must be writable (--privileged)",
            ) from error


def read_sysctl(key: str, namespace: str | None = None) -> str:
    """The value of a sysctl; empty when this kernel has no such one."""
    with enter(namespace):
        try:
            return _sysctl_file(key).read_text().strip()
        except OSError:
            return ""


def _sysctl_file(key: str) -> Path:
    # Interface names may hold dots: '/' separates there, as sysctl(8) has it.
    separator = "/" if "/" in key else "."
    parts = key.split(separator)
    if not all(re.fullmatch(r"[A-Za-z0-9_.:-]+", part) and part.strip(".") for part in parts):
        raise NetworkError(f"{key!r} is no sysctl")
    return Path("/proc/sys", *parts)


def _in(namespace: str | None) -> list[str]:
    return [] if namespace is None else ["-netns", path(namespace).name]


def _network_error(
    error: CommandError, lines: Sequence[str], namespace: str | None
) -> NetworkError:
    """Say which of the commands failed, in which namespace, and why."""
    failed = re.search(r"Command failed -:(\d+)", error.output)
    said = [line for line in error.output.splitlines() if not line.startswith("Command failed")]
    line = lines[int(failed[1]) - 1] if failed and int(failed[1]) <= len(lines) else lines[0]
    place = f" in {namespace}" if namespace else ""
    reason = "; ".join(said).replace("RTNETLINK answers: ", "") or error.message
    hint = "network namespaces need root" if os.geteuid() != 0 else None
    return NetworkError(f"ip {line}{place}: {reason}", hint=hint)


@contextlib.contextmanager
def _own() -> Generator[int]:
    """The namespace the calling thread is in, as an open file."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield back
    finally:
        os.close(back)


def _setns(file: int, what: str) -> None:
    _check(_libc.setns(file, _CLONE_NEWNET), f"cannot enter {what}")


def _identity(target: Path) -> int | None:
    """The inode of a mounted namespace; None for a bare file, which an interruption can leave."""
    try:
        found = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None


def _mount(source: str, name: str) -> None:
    target = path(name)
    with _locked_folder():
        _share_folder()
        target.touch(mode=0o444)
        _check(
            _libc.mount(source.encode(), os.fsencode(target), None, _MS_BIND, None),
            f"cannot name the network namespace {name}",
        )


@contextlib.contextmanager
def _locked_folder() -> Generator[None]:
    """Hold the folder's lock, so that nobody takes it away while a name appears in it."""
    while True:
        FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file).st_ino == FOLDER.stat().st_ino:
                    yield
                    return
        finally:
            os.close(file)


def _share_folder() -> None:
    """Make the folder a shared mount, as iproute2 does.

    Mount namespaces that were copied from ours then see a name go, and do not keep the
    namespace behind it alive.
    """
    folder = os.fsencode(FOLDER)
    if _libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    what = f"cannot make {FOLDER} a shared mount"
    _check(_libc.mount(folder, folder, b"none", _MS_BIND | _MS_REC, None), what)
    _check(_libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None), what)


def _plain(mark: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9 ._:/-]{0,200}", mark):
        raise NetworkError(f"{mark!r} cannot mark a network namespace")
    return mark


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        hint = "network namespaces need root" if os.geteuid() != 0 else None
        raise KernelError(f"{what}: {os.strerror(code)}", errno=code, hint=hint)
