"""Names in bpffs that keep maps, programs and links alive without a process."""

from __future__ import annotations

import os
import struct

from bazaar.bpf import filesystems, syscall
from bazaar.bpf.syscall import Command, address, buffer
from bazaar.errors import KernelError, UsageError

_NAMES = {"bpf-map": "map", "bpf-prog": "prog", "bpf_link": "link", "bpf-link": "link"}


def root() -> str:
    """``/sys/fs/bpf/bazaar``, with bpffs mounted and the folder made, for root alone."""
    folder = f"{filesystems.bpffs()}/bazaar"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def top() -> str:
    """What ``root`` is or would be; nothing is mounted or made, and it need not be there."""
    point, _ = filesystems.place("bpf", filesystems.BPFFS)
    return f"{point}/bazaar"


def pin(fd: int, path: str) -> None:
    """Give an object a name; folders on the way are made.

    A path outside any bpffs is refused with KernelError, as is a name that is taken. bpffs
    keeps names with dots for itself.
    """
    if "." in path:
        raise UsageError(f"cannot pin {path}: names in bpffs have no dots")
    filesystems.bpffs()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise syscall.failure(error.errno or 0, f"cannot pin {path}") from error
    place = buffer(os.fsencode(path) + b"\0")
    syscall.bpf(
        Command.OBJ_PIN, bytearray(struct.pack("<QII", address(place), fd, 0)), f"cannot pin {path}"
    )


def open_fd(path: str, kind: str) -> int:
    """A new descriptor for what is pinned under a path; the caller owns it.

    ``kind`` is ``map``, ``prog`` or ``link``: KernelError when something else is pinned there.
    """
    place = buffer(os.fsencode(path) + b"\0")
    what = f"cannot open what is pinned at {path}"
    fd = syscall.bpf(Command.OBJ_GET, bytearray(struct.pack("<QII", address(place), 0, 0)), what)
    # The kernel describes all three by the same command, in different layouts.
    found = os.readlink(f"/proc/self/fd/{fd}").removeprefix("anon_inode:").strip("[]")
    if found in _NAMES and _NAMES[found] != kind:
        os.close(fd)
        raise KernelError(f"{what}: it is a {_NAMES[found]}, not a {kind}")
    return fd


def unpin(path: str) -> None:
    """Take a name away; no name is no error. What nobody else holds is gone with it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise syscall.failure(error.errno or 0, f"cannot unpin {path}") from error


def remove_all(folder: str) -> None:
    """Take a folder of names away with all below it; it must lie below ``root()``.

    Where there is no bpffs nothing is pinned, and nothing happens.
    """
    import shutil

    ours = os.path.realpath(top())
    chosen = os.path.realpath(folder)
    if chosen != ours and not chosen.startswith(f"{ours}/"):
        raise KernelError(f"{folder} does not lie below {ours}: nothing was removed")
    shutil.rmtree(chosen, ignore_errors=True)
    if os.path.lexists(chosen):
        raise KernelError(f"{folder} could not be removed", hint=f"look into it: ls -R {chosen}")
