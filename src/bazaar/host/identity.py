"""Which container a process belongs to: from cgroups to names people know.

In the kernel a program sees the id of its cgroup in the v2 hierarchy, which is the inode of that
cgroup's directory. Bazaar's own containers have a directory each below ``bazaar/``, and their
name in the state folder; other runtimes are known by how they name their directories.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from bazaar.host import paths

HOST = "host"
GONE = "cgroup (gone)"  # all cgroups that were removed before they had been looked at
_HEXADECIMAL = r"[0-9a-f]{64}"
_CRI = "io.kubernetes.cri"
_PATTERNS = (
    # directory's name → runtime, where group 1 is the container's id
    (re.compile(rf"docker-({_HEXADECIMAL})\.scope"), "docker"),
    (re.compile(rf"cri-containerd-({_HEXADECIMAL})\.scope"), "containerd"),
    (re.compile(rf"crio-({_HEXADECIMAL})\.scope"), "crio"),
    (re.compile(rf"libpod-({_HEXADECIMAL})\.scope"), "podman"),
    (re.compile(r"machine-(.+)\.scope"), "nspawn"),
    (re.compile(r"systemd-nspawn@(.+)\.service"), "nspawn"),
    (re.compile(rf"({_HEXADECIMAL})"), ""),  # cgroupfs driver: the directory above tells
)
# Where containerd keeps the OCI bundles of Kubernetes' containers.
_PODS = Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
_DEEPEST = 12
_MOST = 100_000  # directories looked at; a machine with more shows ids
_FILEID_KERNFS = 0xFE  # include/linux/exportfs.h: a file handle that is a kernfs node's id


def hierarchy() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted; None when it is not."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if right.split(" ", 1)[0] == "cgroup2" and len(fields) > 4:
            return Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4]))
    return None


def is_gone(root: Path, cgroup: int) -> bool:
    """Whether the hierarchy mounted at ``root`` has no cgroup with this id any more.

    The kernel is asked by file handle, not by a walk: that also finds cgroups outside the cgroup
    namespace. Ids are never used twice. False where the kernel does not let us ask.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # struct file_handle: bytes, type, handle
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, _FILEID_KERNFS, cgroup), 16)
    try:
        mount = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = libc.open_by_handle_at(mount, handle, os.O_PATH | os.O_CLOEXEC)
        if found < 0:
            return ctypes.get_errno() == errno.ESTALE
        os.close(found)
        return False
    finally:
        os.close(mount)


class Names:
    """Names of containers by cgroup id; what was seen once is known past the container's death."""

    def __init__(self, root: Path | None = None, known: Mapping[int, str] | None = None) -> None:
        self.root = root or hierarchy()
        self._names: dict[int, str] = dict(known or {})
        self._seen: set[str] = set()
        self._scanned = 0.0

    @property
    def known(self) -> dict[int, str]:
        """Everything known, to be kept over a restart."""
        return dict(self._names)

    def name(self, cgroup: int) -> str:
        """The container's name; ``host`` for processes in none, ``cgroup 123`` for unknown ones.

        Unknown ones that no longer exist have one name, ``cgroup (gone)``: nobody can find out
        any more which container they were.
        """
        if not cgroup:
            return HOST
        if cgroup not in self._names:
            if self.root is not None and is_gone(self.root, cgroup):
                return GONE
            self.refresh()
        return self._names.get(cgroup, f"cgroup {cgroup}")

    def refresh(self, *, every: float = 0.0) -> None:
        """Look for new cgroups, at most once in ``every`` seconds."""
        now = time.monotonic()
        if self.root is None or (every and now - self._scanned < every):
            return
        self._scanned = now
        self._walk(str(self.root), HOST, 0)

    def _walk(self, path: str, name: str, depth: int) -> None:
        try:
            self._names.setdefault(os.stat(path).st_ino, name)
            if depth >= _DEEPEST or len(self._names) > _MOST:
                return
            with os.scandir(path) as entries:
                folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return  # gone meanwhile
        for folder in folders:
            inside = f"{path}/{folder}"
            own = self._own(path, folder) or pod_of(folder) or container_of(inside)
            # Directories inside a container's belong to it.
            self._walk(inside, own or name, depth + 1)

    def _own(self, path: str, folder: str) -> str | None:
        """The name of one of Bazaar's own containers."""
        if path == str(self.root):
            # runc's own choice of a place where not all hierarchies are writable; it knows the
            # container by its id and a mark.
            identifier = folder.removesuffix("+")
            return own_name(identifier) if _is_container(identifier) else None
        if os.path.basename(path) != "bazaar" or os.path.dirname(path) != str(self.root):
            return None
        return own_name(folder)


def _is_container(identifier: str) -> bool:
    return (paths.containers() / identifier / "container.json").is_file()


def own_name(identifier: str) -> str:
    """The name of Bazaar's container with this id; the id itself when its state is not there.

    ``(gvisor)`` behind it says that what is seen are its engine's threads, not the application.
    """
    from bazaar.errors import StateError
    from bazaar.host.files import read_json

    try:
        state = read_json(paths.containers() / identifier / "container.json")
    except (OSError, StateError):
        state = None
    if not isinstance(state, dict):
        return identifier
    found: dict[str, object] = state  # pyright: ignore[reportUnknownVariableType]
    name = found.get("name")
    engine = found.get("engine")
    shown = name if isinstance(name, str) and name else identifier
    shared = not isinstance(engine, str) or engine in ("", "shared", "runc", "crun")
    return shown if shared else f"{shown} ({engine})"


def pod_of(folder: str) -> str | None:
    """The pod that a container's cgroup belongs to, as NAMESPACE/POD; None where it is of none.

    ``(gvisor)`` behind it says that what is seen are its engine's threads.
    """
    found = re.search(_HEXADECIMAL, folder)
    if found is None:
        return None
    import json

    bundle = _PODS / found[0]
    try:
        notes: dict[str, object] = json.loads((bundle / "config.json").read_bytes())["annotations"]
        pod = f"{notes[f'{_CRI}.sandbox-namespace']}/{notes[f'{_CRI}.sandbox-name']}"
        runtime = (bundle / "runtime").read_text()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return f"{pod} (gvisor)" if "runsc" in runtime else pod


def container_of(path: str) -> str | None:
    """The container a cgroup's path belongs to, as ``docker-0123456789ab``; None for none."""
    parts = path.split("/")
    for position in range(len(parts) - 1, -1, -1):
        for pattern, runtime in _PATTERNS:
            found = pattern.fullmatch(parts[position])
            if found is None:
                continue
            above = parts[position - 1] if position else ""
            kind = runtime or (above if above in ("docker", "crio", "libpod") else "container")
            name = found[1].replace("\\x2d", "-")
            return f"{kind}-{name[:12]}" if re.fullmatch(_HEXADECIMAL, name) else name
    return None


def container_of_process(pid: int) -> str:
    """The container a process belongs to, also where only v1 controllers tell; else ``host``."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return HOST
    for line in lines:
        path = line.split(":", 2)[-1]
        parts = path.strip("/").split("/")
        if parts[0] == "bazaar" and len(parts) > 1:
            return own_name(parts[1])
        if name := container_of(path):
            return name
    return HOST
