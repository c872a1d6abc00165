"""The one door to bpf(2) and perf_event_open(2): attributes in, results or KernelError out.

Nobody else in the project calls these. Attributes are packed with ``struct`` by the callers,
in the layout of ``union bpf_attr`` (linux/bpf.h) and ``struct perf_event_attr``.
"""

from __future__ import annotations

import ctypes
import errno as errors
import os
from enum import IntEnum
from typing import Self

from bazaar.errors import KernelError, MissingError

# errno of the kernel's own that libc has no name for.
ENOTSUPP = 524

_NUMBERS = {
    # machine → (bpf, perf_event_open)
    "x86_64": (321, 298),
    "aarch64": (280, 241),
    "riscv64": (280, 241),
    "loongarch64": (280, 241),
    "s390x": (351, 331),
    "ppc64le": (361, 319),
}

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class Command(IntEnum):
    """Commands of bpf(2), ``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    RAW_TRACEPOINT_OPEN = 17
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    TASK_FD_QUERY = 20
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_FREEZE = 22
    BTF_GET_NEXT_ID = 23
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32
    ITER_CREATE = 33
    LINK_DETACH = 34
    PROG_BIND_MAP = 35


def _number(which: int) -> int:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise MissingError(f"BPF on {machine} is not known to Bazaar")
    return _NUMBERS[machine][which]


_BPF: int = _number(0) if os.uname().machine in _NUMBERS else -1


def call(command: int, attributes: bytearray) -> int:
    """bpf(2) as it is: the result, or the errno as a negative number.

    What the kernel writes into ``attributes`` stands in them afterwards. Interrupted calls
    are made again once Python's signal handlers have run, as PEP 475 has it.
    """
    size = len(attributes)
    place = (ctypes.c_char * size).from_buffer(attributes)
    code = 0
    # The verifier gives EAGAIN when a signal is pending; five is libbpf's patience too.
    for _ in range(5):
        result: int = _syscall(_BPF, command, place, size)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code != errors.EINTR and (code != errors.EAGAIN or command != Command.PROG_LOAD):
            return -code
    return -code


def bpf(command: int, attributes: bytearray, what: str, *, hint: str | None = None) -> int:
    """bpf(2), or KernelError: ``what`` says what is being done to which object."""
    result = call(command, attributes)
    if result < 0:
        raise failure(-result, what, hint=hint)
    return result


def perf_event_open(
    attributes: bytes, pid: int, cpu: int, what: str, *, group: int = -1, flags: int = 8
) -> int:
    """A perf event's descriptor (close-on-exec by the default flag), or KernelError."""
    place = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _syscall(
        _number(1), place, ctypes.c_int(pid), ctypes.c_int(cpu), ctypes.c_int(group),
        ctypes.c_ulong(flags),
    )  # fmt: skip
    if result < 0:
        raise failure(ctypes.get_errno(), what)
    return result


def mount(source: str, target: str, kind: str) -> None:
    """mount(2) of a file system that needs no options, or KernelError."""
    result: int = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(0), None
    )
    if result < 0:
        raise failure(ctypes.get_errno(), f"cannot mount {kind} on {target}")


def failure(code: int, what: str, *, hint: str | None = None) -> KernelError:
    """The error for an errno: what failed, why, and what to do about it."""
    why = "Operation not supported by this kernel" if code == ENOTSUPP else os.strerror(code)
    return KernelError(f"{what}: {why}", errno=code, hint=hint or advice(code))


def advice(code: int) -> str | None:
    """What an errno of bpf(2) usually asks for; None when there is nothing to add."""
    if code in {errors.EPERM, errors.EACCES}:
        if os.geteuid() != 0:
            return "BPF needs root (or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)"
        return "root was refused: kernel lockdown, or a container without CAP_BPF and CAP_PERFMON"
    return _ADVICE.get(code)


_ADVICE = {
    errors.E2BIG: "more entries, bytes or instructions than the kernel takes",
    errors.ENOSPC: "the map or buffer is full: give it a larger max_entries",
    errors.ENOMEM: "the kernel has no memory for it (or the cgroup's memory limit is reached)",
    errors.EINVAL: "the kernel knows no such argument: `bazaar doctor` lists what it can do",
    errors.EBUSY: "something else is attached there already",
    errors.EEXIST: "something of that name or in that place exists already",
    errors.ENOSYS: "this kernel is built without bpf(2)",
    errors.EOPNOTSUPP: "the kernel or the device's driver does not support it",
    ENOTSUPP: "the kernel or the device's driver does not support it",
    errors.EMFILE: "too many open files: raise `ulimit -n`",
}


# --- buffers the kernel reads and writes ---

Buffer = ctypes.Array[ctypes.c_char]


def buffer(content: bytes | int) -> Buffer:
    """Memory with a fixed address: a copy of bytes, or that many zeroes."""
    if isinstance(content, int):
        return ctypes.create_string_buffer(content)
    return ctypes.create_string_buffer(content, len(content))


address = ctypes.addressof


class Descriptor:
    """Something of the kernel's behind a file descriptor; a context manager that closes it.

    The object owns ``fd``: it is closed with the object, also when the object is forgotten.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor; KernelError after ``close``."""
        if self._fd < 0:
            raise KernelError(f"{type(self).__name__} is closed", errno=errors.EBADF)
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        """Give the descriptor back; what is pinned or attached elsewhere lives on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Attribute may be missing when __init__ of a subclass failed early.
        if getattr(self, "_fd", -1) >= 0:
            Descriptor.close(self)
