"""BPF maps: what they are, making them, and reading and writing them.

A ``MapSpec`` is the blueprint, a ``Map`` the kernel's object. Keys and values are bytes of the
sizes the map was made with; what they mean is the caller's affair. In a per-CPU map each key
has one value for every *possible* CPU, so such maps have methods of their own.
"""

from __future__ import annotations

import errno as errors
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

from bazaar.bpf import pins, syscall
from bazaar.bpf.syscall import Command, Descriptor, address, buffer
from bazaar.errors import KernelError, UsageError


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

_PER_CPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
_OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
_KEYLESS = frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER})
_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_OBJECTS = frozenset({MapType.PROG_ARRAY, MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY})
_STORAGE = frozenset(
    {MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE}
)

# A batch call's buffers stay below this many bytes.
_BATCH_BYTES = 1 << 20
NAME_LENGTH = 15


@dataclass(frozen=True, slots=True)
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


def create(spec: MapSpec) -> Map:
    """Make the map, or KernelError with the reason."""
    if spec.type == MapType.PERF_EVENT_ARRAY and not spec.max_entries:
        spec = replace(spec, max_entries=possible_cpus())
    inner = create(spec.inner) if spec.inner is not None else None
    storage = None
    try:
        if spec.type in {
            MapType.SK_STORAGE,
            MapType.INODE_STORAGE,
            MapType.TASK_STORAGE,
            MapType.CGRP_STORAGE,
        }:
            from bazaar.bpf.btf_builder import load_storage_types

            storage = load_storage_types(spec.value_size)
        # map_type … map_flags, inner_map_fd, numa_node, map_name, map_ifindex,
        # btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id, map_extra
        attributes = bytearray(
            struct.pack(
                "<7I16s5IQ",
                spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags,
                inner.fd if inner else 0, 0, object_name(spec.name), 0,
                storage.fd if storage else 0, 1 if storage else 0, 2 if storage else 0, 0,
                spec.extra,
            )
        )  # fmt: skip
        fd = syscall.call(Command.MAP_CREATE, attributes)
        if fd < 0:
            raise _creation_error(spec, -fd)
        return Map(fd, spec)
    finally:
        if inner:
            inner.close()
        if storage:
            storage.close()


def _creation_error(spec: MapSpec, code: int) -> KernelError:
    what = f"cannot create map '{spec.name}' ({spec.type.name.lower()})"
    hint = None
    if code in {errors.EINVAL, errors.E2BIG}:
        hint = (
            f"a map of this type with key {spec.key_size} B, value {spec.value_size} B, "
            f"{spec.max_entries} entries, flags {spec.flags:#x} is not possible on this kernel"
        )
    return syscall.failure(code, what, hint=hint)


def object_name(name: str) -> bytes:
    """A name as the kernel takes it: 15 bytes of letters, digits, dots and underscores."""
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "._" else "_" for c in name)
    return kept[:NAME_LENGTH].encode()


class Map(Descriptor):
    """A map of the kernel's; owns its descriptor."""

    def __init__(self, fd: int, spec: MapSpec) -> None:
        super().__init__(fd)
        self.spec = spec
        self.name = spec.name
        self.per_cpu = spec.type in _PER_CPU
        # What one read or write of a value carries.
        self._stride = _padded(spec.value_size) if self.per_cpu else spec.value_size
        if spec.type in _OF_MAPS or spec.type in _OBJECTS:
            self._stride = 4
        self._width = self._stride * (possible_cpus() if self.per_cpu else 1)
        self._key = buffer(max(spec.key_size, 1))
        self._value = buffer(max(self._width, 1))
        self._addresses = address(self._key), address(self._value)
        self._batching = True

    def __repr__(self) -> str:
        return f"<Map {self.name} {self.spec.type.name.lower()} fd {self._fd}>"

    # --- one element ---

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none. In a map of maps: the inner map's id."""
        self._refuse_per_cpu("lookup")
        return self._read(Command.MAP_LOOKUP_ELEM, key)

    def lookup_per_cpu(self, key: bytes) -> list[bytes] | None:
        """The values of a key, one for each possible CPU in order; None where there is none."""
        raw = self._read(Command.MAP_LOOKUP_ELEM, key)
        return None if raw is None else self._split(raw)

    def take(self, key: bytes) -> bytes | None:
        """Look a key up and delete it in one step."""
        self._refuse_per_cpu("take")
        return self._read(Command.MAP_LOOKUP_AND_DELETE_ELEM, key)

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Set a key. In a per-CPU map every CPU gets this value.

        KernelError with errno E2BIG when the map is full, EEXIST or ENOENT as ``flags`` ask.
        """
        if self.per_cpu:
            self.update_per_cpu(key, [value] * possible_cpus(), flags)
            return
        self._write(key, value, flags)

    def update_per_cpu(self, key: bytes, values: list[bytes], flags: int = ANY) -> None:
        """Set a key's values, one for each possible CPU in order."""
        if len(values) != possible_cpus():
            raise UsageError(f"map '{self.name}' takes {possible_cpus()} values, not {len(values)}")
        for value in values:
            self._check("value", value, self.spec.value_size)
        self._write(key, b"".join(value.ljust(self._stride, b"\0") for value in values), flags)

    def update_fd(self, key: bytes, item: Descriptor | int, flags: int = ANY) -> None:
        """Put a program, map or event into a map that holds such (prog array, map of maps …)."""
        fd = item if isinstance(item, int) else item.fd
        self._write(key, struct.pack("<i", fd), flags)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False where there was none."""
        self._put("key", self._key, key, self.spec.key_size)
        result = self._element(Command.MAP_DELETE_ELEM, 0)
        if result < 0 and result != -errors.ENOENT:
            raise self._failure(-result, "delete from")
        return result >= 0

    # --- queues and stacks ---

    def push(self, value: bytes, flags: int = ANY) -> None:
        """Add to a queue, stack or bloom filter; KernelError with E2BIG when it is full."""
        self._put("value", self._value, value, self._width)
        result = self._element(Command.MAP_UPDATE_ELEM, flags, keyless=True)
        if result < 0:
            raise self._failure(-result, "push to")

    def pop(self) -> bytes | None:
        """Take the first of a queue or the last of a stack; None when it is empty."""
        return self._read_keyless(Command.MAP_LOOKUP_AND_DELETE_ELEM)

    def peek(self) -> bytes | None:
        """What ``pop`` would give."""
        return self._read_keyless(Command.MAP_LOOKUP_ELEM)

    # --- all elements ---

    def keys(self) -> Iterator[bytes]:
        """Every key once, as long as nobody deletes meanwhile."""
        key = self._next_key(None)
        seen = 0
        while key is not None and seen <= self.spec.max_entries * 2:
            yield key
            seen += 1
            key = self._next_key(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value, in batches where the kernel has them."""
        self._refuse_per_cpu("items")
        return self._items()

    def items_per_cpu(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Every key with its values, one for each possible CPU in order."""
        for key, raw in self._items():
            yield key, self._split(raw)

    def take_all(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value, deleting them; of a per-CPU map the values stand joined."""
        if self._batching and self.spec.type not in _ARRAYS:
            yield from self._batch_items(Command.MAP_LOOKUP_AND_DELETE_BATCH)
            if self._batching:
                return
        for key, value in list(self._single_items()):
            self.delete(key)
            yield key, value

    def update_batch(self, items: list[tuple[bytes, bytes]], flags: int = ANY) -> None:
        """Set many keys; of a per-CPU map every CPU gets the value."""
        for start in range(0, len(items), self._batch_size()):
            part = items[start : start + self._batch_size()]
            values = (
                b"".join(value.ljust(self._stride, b"\0") * possible_cpus() for _, value in part)
                if self.per_cpu
                else b"".join(value for _, value in part)
            )
            if not self._batch_write(Command.MAP_UPDATE_BATCH, part, values, flags):
                for key, value in part:
                    self.update(key, value, flags)

    def delete_batch(self, keys: list[bytes]) -> None:
        """Remove many keys; such as are not there are passed over."""
        for start in range(0, len(keys), self._batch_size()):
            part = keys[start : start + self._batch_size()]
            pairs = [(key, b"") for key in part]
            if not self._batch_write(Command.MAP_DELETE_BATCH, pairs, b"", 0):
                for key in part:
                    self.delete(key)

    def clear(self) -> None:
        """Remove every key; an array's values become zeroes."""
        if self.spec.type in _ARRAYS:
            zero = b"\0" * self.spec.value_size
            self.update_batch(
                [(struct.pack("<I", index), zero) for index in range(self.spec.max_entries)]
            )
            return
        self.delete_batch(list(self.keys()))

    # --- the object ---

    @property
    def id(self) -> int:
        """The kernel's number for it, as bpftool shows."""
        return struct.unpack_from("<I", info_bytes(self.fd), 4)[0]

    def pin(self, path: str) -> None:
        """Keep it alive under a path in bpffs after everybody closed it."""
        pins.pin(self.fd, path)

    def freeze(self) -> None:
        """Let nobody write to it by system calls any more."""
        syscall.bpf(
            Command.MAP_FREEZE,
            bytearray(struct.pack("<I", self.fd)),
            f"cannot freeze map '{self.name}'",
        )

    def mmap(self, *, writable: bool = True) -> mmap.mmap:
        """An array's values as memory (needs MapFlag.MMAPABLE), each padded to 8 bytes."""
        size = _padded(self.spec.value_size) * self.spec.max_entries
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(self.fd, pages, mmap.MAP_SHARED, protection)
        except OSError as error:
            raise syscall.failure(
                error.errno or 0,
                f"cannot map '{self.name}' into memory",
                hint="only arrays made with MapFlag.MMAPABLE can be",
            ) from error

    # --- below ---

    def _refuse_per_cpu(self, method: str) -> None:
        if self.per_cpu:
            raise UsageError(f"map '{self.name}' has a value for every CPU: use {method}_per_cpu")

    def _check(self, what: str, content: bytes, size: int) -> None:
        if len(content) != size:
            raise UsageError(
                f"map '{self.name}': the {what} has {len(content)} bytes, {size} wanted"
            )

    def _put(self, what: str, place: syscall.Buffer, content: bytes, size: int) -> None:
        self._check(what, content, size)
        place[:size] = content

    def _element(self, command: Command, flags: int, *, keyless: bool = False) -> int:
        key, value = self._addresses
        if command == Command.MAP_DELETE_ELEM:
            value = 0  # the kernel wants what it does not use to be 0
        fields = struct.pack("<IIQQQ", self.fd, 0, 0 if keyless else key, value, flags)
        return syscall.call(command, bytearray(fields))

    def _read(self, command: Command, key: bytes) -> bytes | None:
        self._put("key", self._key, key, self.spec.key_size)
        result = self._element(command, 0)
        if result == -errors.ENOENT:
            return None
        if result < 0:
            raise self._failure(-result, "read from")
        return self._value.raw[: self._width]

    def _read_keyless(self, command: Command) -> bytes | None:
        result = self._element(command, 0, keyless=True)
        if result == -errors.ENOENT:
            return None
        if result < 0:
            raise self._failure(-result, "read from")
        return self._value.raw[: self._width]

    def _write(self, key: bytes, value: bytes, flags: int) -> None:
        self._put("key", self._key, key, self.spec.key_size)
        self._put("value", self._value, value, self._width)
        result = self._element(Command.MAP_UPDATE_ELEM, flags)
        if result < 0:
            raise self._failure(-result, "write to")

    def _failure(self, code: int, what: str) -> KernelError:
        hint = None
        if code == errors.E2BIG:
            hint = f"it is full, or the index is beyond its {self.spec.max_entries} entries"
        return syscall.failure(code, f"cannot {what} map '{self.name}'", hint=hint)

    def _split(self, raw: bytes) -> list[bytes]:
        size, stride = self.spec.value_size, self._stride
        return [raw[at : at + size] for at in range(0, len(raw), stride)]

    def _next_key(self, key: bytes | None) -> bytes | None:
        size = self.spec.key_size
        following = buffer(max(size, 1))
        if key is not None:
            self._put("key", self._key, key, size)
        attributes = struct.pack(
            "<IIQQ", self.fd, 0, self._addresses[0] if key is not None else 0, address(following)
        )
        result = syscall.call(Command.MAP_GET_NEXT_KEY, bytearray(attributes))
        if result == -errors.ENOENT:
            return None
        if result < 0:
            raise self._failure(-result, "list")
        return following.raw[:size]

    def _items(self) -> Iterator[tuple[bytes, bytes]]:
        if self._batching:
            yield from self._batch_items(Command.MAP_LOOKUP_BATCH)
            if self._batching:
                return
        yield from self._single_items()

    def _single_items(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys():
            value = self._read(Command.MAP_LOOKUP_ELEM, key)
            if value is not None:
                yield key, value

    def _batch_size(self) -> int:
        entry = self.spec.key_size + self._width
        return max(64, min(self.spec.max_entries, _BATCH_BYTES // max(entry, 1)))

    def _batch_items(self, command: Command) -> Iterator[tuple[bytes, bytes]]:
        """Batches; where the kernel has none for this type, switches batching off and ends.

        The kernel takes whole buckets of a hash, so ENOSPC means: give more room.
        """
        count = self._batch_size()
        # The position is a bucket number, or a key in maps that are walked by key.
        positions = buffer(max(self.spec.key_size, 8)), buffer(max(self.spec.key_size, 8))
        begun = False
        while True:
            keys, values = buffer(count * self.spec.key_size), buffer(count * self._width)
            attributes = bytearray(
                struct.pack(
                    "<QQQQIIQQ",
                    address(positions[0]) if begun else 0, address(positions[1]),
                    address(keys), address(values), count, self.fd, 0, 0,
                )
            )  # fmt: skip
            result = syscall.call(command, attributes)
            if result == -errors.ENOSPC and count <= self.spec.max_entries * 2:
                count *= 2
                continue
            if result < 0 and result != -errors.ENOENT:
                if begun or result not in _NO_BATCH:
                    raise self._failure(-result, "list")
                self._batching = False
                return
            found: int = struct.unpack_from("<I", attributes, 32)[0]
            yield from self._pairs(keys.raw, values.raw, min(found, count))
            if result < 0:
                return
            begun = True
            positions = positions[1], positions[0]

    def _pairs(self, keys: bytes, values: bytes, count: int) -> Iterator[tuple[bytes, bytes]]:
        size, width = self.spec.key_size, self._width
        for index in range(count):
            yield (
                keys[index * size : (index + 1) * size],
                values[index * width : (index + 1) * width],
            )

    def _batch_write(
        self, command: Command, items: list[tuple[bytes, bytes]], values: bytes, flags: int
    ) -> bool:
        """Write or delete by one call; False where it has to be done one by one."""
        if not self._batching or not items:
            return not items
        keys = buffer(b"".join(key for key, _ in items))
        if len(keys) != len(items) * self.spec.key_size:
            raise UsageError(f"map '{self.name}' takes keys of {self.spec.key_size} bytes")
        if command == Command.MAP_UPDATE_BATCH and len(values) != len(items) * self._width:
            raise UsageError(f"map '{self.name}' takes values of {self.spec.value_size} bytes")
        content = buffer(values)
        attributes = bytearray(
            struct.pack(
                "<QQQQIIQQ",
                0, 0, address(keys), address(content), len(items), self.fd, flags, 0,
            )
        )  # fmt: skip
        result = syscall.call(command, attributes)
        if result in _NO_BATCH:
            return False
        # A batch stops at a key that is not there: the rest is done one by one.
        if result == -errors.ENOENT and command == Command.MAP_DELETE_BATCH:
            return False
        if result < 0:
            raise self._failure(-result, "write to")
        return True


# Older kernels know no such command, and not every type has every operation.
_NO_BATCH = frozenset({-errors.EINVAL, -errors.EOPNOTSUPP, -syscall.ENOTSUPP})


def _padded(size: int) -> int:
    return (size + 7) & ~7


# --- maps that exist already ---


def info_bytes(fd: int) -> bytes:
    """``struct bpf_map_info`` of a map."""
    place = buffer(128)
    attributes = bytearray(struct.pack("<IIQ", fd, len(place), address(place)))
    syscall.bpf(Command.OBJ_GET_INFO_BY_FD, attributes, "cannot read a map's description")
    return place.raw


def from_fd(fd: int) -> Map:
    """A Map around a descriptor, described by the kernel; takes the descriptor over."""
    try:
        kind, _, key, value, entries, flags, name = struct.unpack_from("<6I16s", info_bytes(fd))
        text = name.split(b"\0")[0].decode(errors="replace")
        extra: int = struct.unpack_from("<Q", info_bytes(fd), 80)[0]
        spec = MapSpec(text, MapType(kind), key, value, entries, flags, extra=extra)
    except BaseException:
        os.close(fd)
        raise
    return Map(fd, spec)


def open_pinned(path: str) -> Map:
    """The map pinned under a path, or KernelError."""
    return from_fd(pins.open_fd(path))


def open_id(number: int) -> Map:
    """The map with the kernel's number, or KernelError."""
    attributes = bytearray(struct.pack("<III", number, 0, 0))
    return from_fd(syscall.bpf(Command.MAP_GET_FD_BY_ID, attributes, f"cannot open map {number}"))
