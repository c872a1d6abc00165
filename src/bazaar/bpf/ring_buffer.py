"""Reads a RINGBUF map: the kernel's memory mapped here, one record after another.

Layout by the kernel's Documentation/bpf/ringbuf.rst: a page with the reader's position, a page
with the writers' position, then the data mapped twice in a row so that no record is torn.
"""

from __future__ import annotations

import mmap
import select
import struct
from collections.abc import Iterator
from typing import Self

from bazaar.bpf import syscall
from bazaar.bpf.maps import Map, MapType
from bazaar.errors import KernelError, UsageError

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_POSITION = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")


class RingBuffer:
    """A reader of one ring buffer; does not own the map. There must be only one reader."""

    def __init__(self, ring: Map) -> None:
        if ring.spec.type != MapType.RINGBUF:
            raise UsageError(f"map '{ring.name}' is no ring buffer")
        self._map = ring
        self._size = ring.spec.max_entries
        page = mmap.PAGESIZE
        try:
            self._consumer = mmap.mmap(
                ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
            )
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._data = mmap.mmap(
                ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
            )
        except OSError as error:
            self._consumer.close()
            raise self._failure(error) from error
        self._poll = select.poll()
        self._poll.register(ring.fd, select.POLLIN)

    def _failure(self, error: OSError) -> KernelError:
        what = f"cannot map ring buffer '{self._map.name}' into memory"
        return syscall.failure(error.errno or 0, what)

    def fileno(self) -> int:
        """Becomes readable when there are records."""
        return self._map.fd

    def poll(self, timeout: float | None = None) -> bool:
        """Wait for records; seconds, None for ever. False when the time ran out."""
        if self.pending:
            return True
        # Rounded up: a wait of 0.4 ms must not become a busy loop.
        milliseconds = None if timeout is None else max(0, -int(-timeout * 1000 // 1))
        return bool(self._poll.poll(milliseconds))

    @property
    def pending(self) -> int:
        """Bytes written and not read yet, headers included."""
        written: int = _POSITION.unpack_from(self._data)[0]
        read: int = _POSITION.unpack_from(self._consumer)[0]
        return written - read

    def __iter__(self) -> Iterator[bytes]:
        """The records there are now, oldest first, as copies. Ends at what is still being
        written, and at what was written when it began: a flood cannot keep it busy for ever."""
        mask = self._size - 1
        read: int = _POSITION.unpack_from(self._consumer)[0]
        written: int = _POSITION.unpack_from(self._data)[0]
        while read < written:
            place = mmap.PAGESIZE + (read & mask)
            header: int = _LENGTH.unpack_from(self._data, place)[0]
            if header & _BUSY:
                return
            length = header & ~_DISCARDED
            if length > self._size:
                raise KernelError(
                    f"ring buffer '{self._map.name}' holds a record of {length} bytes"
                )
            start = place + _HEADER
            record = None if header & _DISCARDED else self._data[start : start + length]
            read += (length + _HEADER + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, read)
            if record is not None:
                yield record

    def close(self) -> None:
        """Unmap; the map stays open."""
        self._consumer.close()
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
