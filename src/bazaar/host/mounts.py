"""Mounts: mount(2) and umount2(2), overlays, binds, namespaces, and reading mountinfo."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bazaar.errors import KernelError
from bazaar.model.record import record

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

_CLONE_NEWNS = 0x00020000  # linux/sched.h
PAGE = 4096  # mount(2) takes at most a page of options

_libc = ctypes.CDLL(None, use_errno=True)
_ESCAPE = r"\\([0-7]{3})"


@record
class MountPoint:
    """One line of a mountinfo file (proc(5))."""

    root: str
    target: str
    kind: str  # the file system's type
    source: str
    options: frozenset[str]  # of the mount
    super_options: frozenset[str]  # of the file system; for cgroup v1 the controllers


def mount(
    source: str, target: Path | str, kind: str = "", flags: int = 0, options: str = ""
) -> None:
    """mount(2). Raises KernelError that names both ends."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(str(target)),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        os.fsencode(options) or None,
    )
    if result != 0:
        error = ctypes.get_errno()
        raise KernelError(
            f"cannot mount {kind or source} on {target}: {os.strerror(error)}", errno=error
        )


def unmount(target: Path | str, flags: int = MNT_DETACH) -> bool:
    """umount2(2), lazily unless told otherwise; False when nothing was mounted there."""
    if _libc.umount2(os.fsencode(str(target)), flags | UMOUNT_NOFOLLOW) == 0:
        return True
    error = ctypes.get_errno()
    if error in (22, 2):  # EINVAL: no mount point; ENOENT
        return False
    raise KernelError(f"cannot unmount {target}: {os.strerror(error)}", errno=error)


def bind(source: Path, target: Path, *, read_only: bool = False, recursive: bool = False) -> None:
    """Show ``source`` at ``target`` too; what is mounted below either later, only there."""
    deep = MS_REC if recursive else 0
    mount(str(source), target, flags=MS_BIND | deep)
    # systemd makes all mounts shared: one made below the target would appear at the source.
    mount("none", target, flags=MS_PRIVATE | deep)
    if not read_only:
        return
    places = [str(target)]
    if recursive:  # each of the mounts below has flags of its own
        places += [p.target for p in mounted() if p.target.startswith(f"{target}/")]
    for place in places:
        mount("none", place, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def overlay(
    layers: Sequence[Path], target: Path, *, upper: Path | None = None, work: Path | None = None
) -> None:
    """Mount ``layers`` (lowest first) over one another; writable with ``upper`` and ``work``.

    Raises KernelError; EINVAL where a directory cannot serve as ``upper`` (it lies on an
    overlay itself).
    """
    with contextlib.ExitStack() as opened:

        def name(path: Path) -> str:
            # By descriptor: short enough for 127 layers on a page, and without a character
            # that separates options, whatever the folder is called.
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        try:
            options = "lowerdir=" + ":".join(map(name, reversed(layers)))
            if upper is not None and work is not None:
                options += f",upperdir={name(upper)},workdir={name(work)}"
        except OSError as error:
            raise KernelError(
                f"cannot use {error.filename} as an overlay layer: {error.strerror}",
                errno=error.errno or 0,
            ) from error
        if len(options) >= PAGE:
            raise KernelError(f"cannot mount {len(layers)} layers on {target}: too many")
        mount("overlay", target, "overlay", 0 if upper else MS_RDONLY, options)


def separate(source: Path, target: Path | str, *, without: Path | None = None) -> None:
    """Give the calling thread mounts of its own, in which ``source`` is seen at ``target``.

    There is no way back: call it in a thread for itself (`namespaces.aside`). Programs it
    starts inherit them, and would keep what is mounted alive: mounts below ``without`` are
    left out.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        error = ctypes.get_errno()
        raise KernelError(f"cannot make a mount namespace: {os.strerror(error)}", errno=error)
    mount("none", "/", flags=MS_REC | MS_SLAVE)
    bind(source, Path(target))
    if without is not None:
        for point in reversed(mounted()):
            if point.target.startswith(f"{without}/"):
                with contextlib.suppress(KernelError):
                    unmount(point.target)


def parse(text: str) -> Iterator[MountPoint]:
    """Read the text of a mountinfo file; lines that are none are passed over."""
    for line in text.split("\n"):
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 2:
            continue
        yield MountPoint(
            root=_plain(fields[3]),
            target=_plain(fields[4]),
            kind=tail[0],
            source=_plain(tail[1]),
            options=frozenset(fields[5].split(",")),
            super_options=frozenset(tail[2].split(",")) if len(tail) > 2 else frozenset(),
        )


def mounted() -> list[MountPoint]:
    """Everything mounted in the calling thread's namespace, in mount order."""
    with open("/proc/thread-self/mountinfo", errors="surrogateescape") as file:
        return list(parse(file.read()))


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly there."""
    return any(point.target == str(target) for point in mounted())


def unmount_below(folder: Path) -> list[str]:
    """Unmount everything at or below ``folder``, deepest first; the targets that were."""
    prefix = str(folder).rstrip("/")
    done: list[str] = []
    for point in reversed(mounted()):
        if (point.target == prefix or point.target.startswith(prefix + "/")) and unmount(
            point.target
        ):
            done.append(point.target)
    return done


def _plain(field: str) -> str:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    if "\\" not in field:
        return field
    return re.sub(_ESCAPE, lambda match: chr(int(match[1], 8)), field)
