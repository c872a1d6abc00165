"""What a map is made by: its type, its flags, its blueprint, and the CPUs it is for."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from bazaar.model.record import record


class MapType(IntEnum):
    """``enum bpf_map_type`` of linux/bpf.h."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


class MapFlag(IntFlag):
    """Flags of map creation."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    MMAPABLE = 1 << 10
    INNER_MAP = 1 << 12


# Flags of an update.
ANY = 0
NOEXIST = 1
EXIST = 2

PER_CPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
OBJECTS = frozenset({MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY})
STORAGE = frozenset(
    {MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE}
)

NAME_LENGTH = 15


@record
class MapSpec:
    """The blueprint of a map; sizes are bytes.

    ``value_size`` of a per-CPU map is one CPU's. A ring buffer has no key and no value, and
    ``max_entries`` is its bytes: a power of two, at least a page. ``inner`` is the blueprint
    of the maps in a map of maps. ``extra`` is the bloom filter's number of hashes.
    """

    name: str
    type: MapType
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 1
    flags: int = 0
    inner: MapSpec | None = None
    extra: int = 0


def possible_cpus() -> int:
    """How many CPUs the kernel reserves per-CPU values for."""
    global _possible
    if not _possible:
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
            _possible = len(parse_cpus(file.read()))
    return _possible


_possible = 0


def parse_cpus(text: str) -> list[int]:
    """CPU numbers from the kernel's list format, e.g. ``0-3,8``."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def object_name(name: str) -> bytes:
    """A name as the kernel takes it: 15 bytes of letters, digits, dots and underscores."""
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "._" else "_" for c in name)
    return kept[:NAME_LENGTH].encode()


def padded(size: int) -> int:
    """Bytes a value takes in a per-CPU or mapped map: a multiple of eight."""
    return (size + 7) & ~7
