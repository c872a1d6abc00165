"""Reading and writing a map's elements: one at a time, and in batches where the kernel can."""

from __future__ import annotations

import errno as errors
import struct
from collections.abc import Iterator

from bazaar.bpf import syscall
from bazaar.bpf.map_types import OBJECTS, OF_MAPS, PER_CPU, MapSpec, padded, possible_cpus
from bazaar.bpf.syscall import Command, Descriptor, address, buffer
from bazaar.errors import KernelError, UsageError

# A batch call's buffers stay below this many bytes.
_BATCH_BYTES = 1 << 20

# Older kernels know no such command, and not every type has every operation.
_NO_BATCH = frozenset({-errors.EINVAL, -errors.EOPNOTSUPP, -syscall.ENOTSUPP})


class Elements(Descriptor):
    """A map's elements as the kernel hands them over: raw, per-CPU values joined."""

    def __init__(self, fd: int, spec: MapSpec) -> None:
        super().__init__(fd)
        self.spec = spec
        self.name = spec.name
        self.per_cpu = spec.type in PER_CPU
        # What one read or write of a value carries.
        self._stride = padded(spec.value_size) if self.per_cpu else spec.value_size
        if spec.type in OF_MAPS or spec.type in OBJECTS:
            self._stride = 4
        self._width = self._stride * (possible_cpus() if self.per_cpu else 1)
        self._batching = True

    def _refuse_per_cpu(self, method: str) -> None:
        if self.per_cpu:
            raise UsageError(f"map '{self.name}' has a value for every CPU: use {method}_per_cpu")

    def keys(self) -> Iterator[bytes]:
        """Every key once, as long as nobody deletes meanwhile."""
        key = self._next_key(None)
        seen = 0
        while key is not None and seen <= self.spec.max_entries * 2:
            yield key
            seen += 1
            key = self._next_key(key)

    def _check(self, what: str, content: bytes, size: int) -> None:
        if len(content) != size:
            raise UsageError(
                f"map '{self.name}': the {what} has {len(content)} bytes, {size} wanted"
            )

    def _element(
        self, command: Command, key: bytes | None, value: syscall.Buffer | None, flags: int = 0
    ) -> int:
        """One command on one element. Memory is this call's own: threads may share a map."""
        if key is not None:
            self._check("key", key, self.spec.key_size)
        place = buffer(key or b"\0")
        fields = struct.pack(
            "<IIQQQ", self.fd, 0, address(place) if key is not None else 0,
            address(value) if value is not None else 0, flags,
        )  # fmt: skip
        return syscall.call(command, bytearray(fields))

    def _read(self, command: Command, key: bytes | None) -> bytes | None:
        value = buffer(max(self._width, 1))
        result = self._element(command, key, value)
        if result == -errors.ENOENT:
            return None
        if result < 0:
            raise self._failure(-result, "read from")
        return value.raw[: self._width]

    def _write(self, key: bytes | None, value: bytes, flags: int) -> None:
        self._check("value", value, self._width)
        result = self._element(Command.MAP_UPDATE_ELEM, key, buffer(value or b"\0"), flags)
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
        following = buffer(max(self.spec.key_size, 1))
        result = self._element(Command.MAP_GET_NEXT_KEY, key, following)
        if result == -errors.ENOENT:
            return None
        if result < 0:
            raise self._failure(-result, "list")
        return following.raw[: self.spec.key_size]

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
