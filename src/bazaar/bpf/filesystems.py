"""tracefs and bpffs: where they are mounted, and mounting them where they are not."""

from __future__ import annotations

import os

from bazaar.bpf import syscall
from bazaar.errors import KernelError

BPFFS = "/sys/fs/bpf"
TRACEFS = "/sys/kernel/tracing"


def mounted(kind: str) -> list[str]:
    """Mount points of a file system type whose root is its own, by /proc/self/mountinfo."""
    found: list[str] = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields = left.split()
            if right.split(" ", 1)[0] == kind and fields[3] == "/":
                found.append(_unescape(fields[4]))
    return found


def _unescape(text: str) -> str:
    # proc(5): space, tab, newline and backslash stand as \ooo.
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def tracefs() -> str:
    """tracefs' mount point; mounts it at its usual place when it is nowhere."""
    if os.path.isdir(f"{TRACEFS}/events"):
        return TRACEFS
    return _ensure("tracefs", TRACEFS)


def bpffs() -> str:
    """bpffs' mount point; mounts it at its usual place when it is nowhere."""
    return _ensure("bpf", BPFFS)


def place(kind: str, usual: str) -> tuple[str, bool]:
    """Where a file system is or would be mounted, and whether it is."""
    points = mounted(kind)
    return (usual if usual in points or not points else points[0]), bool(points)


def _ensure(kind: str, usual: str) -> str:
    point, there = place(kind, usual)
    if there:
        return point
    if not os.path.isdir(usual):
        raise KernelError(
            f"{kind} cannot be mounted: this kernel has no {usual}",
            hint="the kernel is built without it, or /sys is not mounted",
        )
    syscall.mount("nodev" if kind == "tracefs" else kind, usual, kind)
    return usual
