"""perf events that BPF programs hang on: tracepoints, software events, clocks, uprobes."""

from __future__ import annotations

import os
import struct
from enum import IntEnum

from bazaar.bpf import filesystems, syscall
from bazaar.bpf.map_types import parse_cpus
from bazaar.bpf.syscall import Descriptor, address, buffer
from bazaar.errors import KernelError, MissingError

_SOFTWARE, _TRACEPOINT = 1, 2
_FREQUENCY_BIT = 1 << 10
_ATTRIBUTE_SIZE = 112


class Software(IntEnum):
    """Software events, ``enum perf_sw_ids``."""

    CPU_CLOCK = 0
    TASK_CLOCK = 1
    PAGE_FAULTS = 2
    CONTEXT_SWITCHES = 3
    CPU_MIGRATIONS = 4
    PAGE_FAULTS_MIN = 5
    PAGE_FAULTS_MAJ = 6
    ALIGNMENT_FAULTS = 7
    EMULATION_FAULTS = 8
    DUMMY = 9
    BPF_OUTPUT = 10
    CGROUP_SWITCHES = 11


def online_cpus() -> list[int]:
    """Numbers of the CPUs that run."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        return parse_cpus(file.read())


def tracepoint_id(category: str, name: str) -> int:
    """The kernel's number of a tracepoint, from tracefs; MissingError when there is none."""
    if not all(part and "/" not in part and part != ".." for part in (category, name)):
        raise MissingError(f"'{category}:{name}' is no tracepoint's name")
    folder = filesystems.tracefs()
    try:
        with open(f"{folder}/events/{category}/{name}/id", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        nearest = f"{folder}/events/{category}"
        if not os.path.isdir(nearest):
            nearest = f"{folder}/events"
        raise MissingError(
            f"this kernel has no tracepoint {category}:{name}",
            hint=f"those it has are the folders in {nearest}",
        ) from None
    except (OSError, ValueError) as error:
        raise KernelError(f"cannot read the number of {category}:{name}: {error}") from error


def tracepoint(category: str, name: str) -> Descriptor:
    """A tracepoint's event; programs attached to it run on all CPUs."""
    number = tracepoint_id(category, name)
    return _open(_TRACEPOINT, number, f"cannot open tracepoint {category}:{name}", period=1)


def software(
    kind: Software, *, cpu: int = -1, pid: int = -1, period: int = 0, frequency: int = 0
) -> Descriptor:
    """A software event: every ``period`` events (nanoseconds for clocks) or ``frequency`` a
    second, on one CPU or, with ``cpu=-1``, wherever process ``pid`` runs."""
    what = f"cannot open software event {kind.name.lower()}"
    return _open(_SOFTWARE, kind, what, cpu=cpu, pid=pid, period=period, frequency=frequency)


def uprobe(path: str, offset: int, *, returns: bool = False, pid: int = -1) -> Descriptor:
    """A probe on the instruction at a file offset of a program or library, or on the return
    of the function there."""
    folder = "/sys/bus/event_source/devices/uprobe"
    try:
        with open(f"{folder}/type", encoding="ascii") as file:
            kind = int(file.read())
        with open(f"{folder}/format/retprobe", encoding="ascii") as file:
            bit = int(file.read().split(":")[1])
    except (OSError, ValueError, IndexError) as error:
        raise MissingError("this kernel has no uprobes") from error
    place = buffer(os.fsencode(path) + b"\0")
    return _open(
        kind, (1 << bit) if returns else 0, f"cannot probe {path} at {offset:#x}",
        pid=pid, config1=address(place), config2=offset,
    )  # fmt: skip


def _open(
    kind: int,
    config: int,
    what: str,
    *,
    cpu: int = -1,
    pid: int = -1,
    period: int = 0,
    frequency: int = 0,
    config1: int = 0,
    config2: int = 0,
) -> Descriptor:
    # type, size, config, sample_period or sample_freq, sample_type, read_format, flags,
    # wakeup_events, bp_type, config1, config2
    attributes = struct.pack(
        "<IIQQQQQIIQQ",
        kind, _ATTRIBUTE_SIZE, config, frequency or period, 0, 0,
        _FREQUENCY_BIT if frequency else 0, 0, 0, config1, config2,
    ).ljust(_ATTRIBUTE_SIZE, b"\0")  # fmt: skip
    if pid == -1 and cpu == -1:
        cpu = online_cpus()[0]
    return Descriptor(syscall.perf_event_open(attributes, pid, cpu, what))
