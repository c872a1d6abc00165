"""A container's root: its layers mounted over one another, and safe looks inside it.

What lies inside comes from the image and is hostile: a link in it must lead to a place in the
root, never to the host's. Paths are resolved here, component by component, as chroot would.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from bazaar.errors import EngineError, KernelError
from bazaar.host import mounts
from bazaar.model.record import record

MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)
MAX_DATABASE = 1 << 20  # bytes of an image's /etc/passwd or /etc/group that are read


def mount(layers: Sequence[Path], folder: Path) -> Path:
    """Mount ``layers``, lowest first, writable at ``folder``/rootfs and return that.

    What is written goes to ``folder``/upper. Where ``folder`` cannot hold an overlay's upper
    directory (it lies on an overlay itself), a tmpfs at ``folder``/scratch takes its place.
    """
    target = folder / "rootfs"
    target.mkdir(exist_ok=True)
    for layer in layers:
        if not layer.is_dir():
            raise EngineError(f"image layer {layer} is gone", hint="run again with --pull always")
    try:
        _overlay(layers, target, folder)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        mounts.mount("tmpfs", scratch, "tmpfs", mounts.MS_NODEV, "mode=700")
        _overlay(layers, target, scratch)
    return target


def _overlay(layers: Sequence[Path], target: Path, folder: Path) -> None:
    upper, work = folder / "upper", folder / "work"
    for path in (upper, work):
        path.mkdir(exist_ok=True)
    # The root directory's owner and mode are the topmost layer's, and show through the upper one.
    top = layers[-1].stat()
    os.chown(upper, top.st_uid, top.st_gid)
    upper.chmod(stat.S_IMODE(top.st_mode))
    mounts.overlay(layers, target, upper=upper, work=work)


def unmount(folder: Path) -> None:
    """Take away whatever is mounted below a container's directory."""
    mounts.unmount_below(folder)


def resolve(root: Path, path: str) -> Path | None:
    """Where ``path`` lies on the host when ``root`` is /; None when it does not exist.

    Follows links as a process inside would; none can lead out of ``root``.
    """
    done: list[str] = []
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        try:
            mode = here.lstat().st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_LINKS:
                return None
            target = str(here.readlink())
            if target.startswith("/"):
                done = []
            pending += [name for name in reversed(target.split("/")) if name not in ("", ".")]
        else:
            done.append(part)
    return root.joinpath(*done)


@record
class User:
    """Who a container's process is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def user(root: Path, wanted: str) -> User:
    """``USER[:GROUP]`` by name or number, from the image's /etc/passwd and /etc/group.

    Raises EngineError when a name is not there. A number needs no entry.
    """
    name, _, group = (wanted or "0").partition(":")
    name = name or "0"
    accounts = _database(root, "/etc/passwd", 7)
    entry = next((fields for fields in accounts if fields[0] == name), None)
    if entry is None and name.isdecimal():
        entry = next((fields for fields in accounts if fields[2] == name), None)
    if entry is None and not name.isdecimal():
        raise EngineError(
            f"unable to find user {name}: no matching entry in the image's /etc/passwd",
            hint="name a user of the image, or a number: -u 1000",
        )
    groups = _database(root, "/etc/group", 4)
    uid = int(entry[2]) if entry else int(name)
    gid = int(entry[3]) if entry else 0
    others = (
        () if group else tuple(int(g[2]) for g in groups if entry and entry[0] in g[3].split(","))
    )
    if group:
        found = next((fields for fields in groups if fields[0] == group), None)
        if found is None and not group.isdecimal():
            raise EngineError(
                f"unable to find group {group}: no matching entry in the image's /etc/group"
            )
        gid = int(found[2]) if found else int(group)
    if not (0 <= uid < 2**32 - 1 and 0 <= gid < 2**32 - 1):
        raise EngineError(f"user {wanted}: uids and gids go from 0 to {2**32 - 2}")
    return User(uid, gid, tuple(dict.fromkeys(others)), (entry[5] if entry else "") or "/")


def _database(root: Path, path: str, width: int) -> list[list[str]]:
    place = resolve(root, path)
    if place is None or not place.is_file():
        return []
    with place.open("rb") as file:
        text = file.read(MAX_DATABASE).decode(errors="replace")
    rows = (line.split(":") for line in text.splitlines())
    numeric = (2, 3) if width == 7 else (2,)
    return [
        row
        for row in rows
        if len(row) == width
        and all(row[column].isascii() and row[column].isdecimal() for column in numeric)
    ]


@record
class Executable:
    """Whether a command can be run: its exit code as docker has it, 0 when it can."""

    code: int  # 0 | 126 not executable | 127 not found


def executable(
    root: Path, command: str, search: str, directory: str, mounted: Sequence[str]
) -> Executable:
    """Look for ``command`` as execvp would, with ``search`` as PATH, inside ``root``.

    What lies below a mount is not judged: it is not in the image.
    """
    if "/" in command:
        candidates = [command if command.startswith("/") else f"{directory.rstrip('/')}/{command}"]
    else:
        candidates = [f"{folder or directory}/{command}" for folder in search.split(":")]
    code = 127
    for candidate in candidates:
        if any(
            candidate == target or candidate.startswith(target.rstrip("/") + "/")
            for target in mounted
        ):
            return Executable(0)
        place = resolve(root, candidate)
        if place is None:
            continue
        mode = place.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o111:
            return Executable(0)
        code = 126
    return Executable(code)
