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

from bazaar.bpf import pins, syscall
from bazaar.bpf.map_elements import Elements
from bazaar.bpf.map_types import (
    ANY,
    ARRAYS,
    EXIST,
    NOEXIST,
    MapFlag,
    MapSpec,
    MapType,
    object_name,
    padded,
    parse_cpus,
    possible_cpus,
)
from bazaar.bpf.syscall import Command, Descriptor, address, buffer
from bazaar.errors import KernelError, UsageError
from bazaar.model.record import replace

__all__ = [
    "ANY", "EXIST", "NOEXIST", "Map", "MapFlag", "MapSpec", "MapType", "create", "from_fd",
    "info_bytes", "object_name", "open_id", "open_pinned", "parse_cpus", "possible_cpus",
]  # fmt: skip


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


class Map(Elements):
    """A map of the kernel's; owns its descriptor."""

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
        result = self._element(Command.MAP_DELETE_ELEM, key, None)
        if result < 0 and result != -errors.ENOENT:
            raise self._failure(-result, "delete from")
        return result >= 0

    # --- queues and stacks ---

    def push(self, value: bytes, flags: int = ANY) -> None:
        """Add to a queue, stack or bloom filter; KernelError with E2BIG when it is full."""
        self._write(None, value, flags)

    def pop(self) -> bytes | None:
        """Take the first of a queue or the last of a stack; None when it is empty."""
        return self._read(Command.MAP_LOOKUP_AND_DELETE_ELEM, None)

    def peek(self) -> bytes | None:
        """What ``pop`` would give."""
        return self._read(Command.MAP_LOOKUP_ELEM, None)

    # --- all elements ---

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
        if self._batching and self.spec.type not in ARRAYS:
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
        if self.spec.type in ARRAYS:
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
        size = padded(self.spec.value_size) * self.spec.max_entries
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
    return from_fd(pins.open_fd(path, "map"))


def open_id(number: int) -> Map:
    """The map with the kernel's number, or KernelError."""
    attributes = bytearray(struct.pack("<III", number, 0, 0))
    return from_fd(syscall.bpf(Command.MAP_GET_FD_BY_ID, attributes, f"cannot open map {number}"))
