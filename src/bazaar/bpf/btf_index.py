"""An index of a BTF blob: where each type stands, and which types have a name.

Walking the kernel's 126,000 types takes a tenth of a second and more memory than a tracer
should; so the index is made once for each kernel, kept on disk, and mapped into memory.

File: magic, then eight numbers of 64 bits (version, checksum of the rest, length and
fingerprint of the blob, count of types, count of names, and two reserved), then for each type
its offset in the type section (u32), padded to 8 bytes, then for each named type
``crc32(name) << 32 | id`` (u64), sorted.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator

from bazaar.errors import BtfError

_MAGIC = b"bzrbtfix"
_VERSION = 1
_HEAD = struct.Struct("<8s8Q")
# What follows the 12 bytes all types have: fixed bytes, and bytes for each of vlen parts.
_FIXED = (0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4, 0, 0)
_EACH = (0, 0, 0, 0, 12, 12, 8, 0, 0, 0, 0, 0, 0, 8, 0, 12, 0, 0, 0, 12)


class Index:
    """``offsets[id - 1]`` is where a type stands; ``ids(name)`` are the types of a name."""

    def __init__(self, offsets: memoryview, names: memoryview) -> None:
        self.offsets = offsets
        self._names = names

    def ids(self, name: bytes) -> Iterator[int]:
        """Types that may have this name, by number; the caller compares the name itself."""
        wanted = zlib.crc32(name)
        place = bisect_left(self._names, wanted << 32)
        while place < len(self._names) and self._names[place] >> 32 == wanted:
            yield self._names[place] & 0xFFFFFFFF
            place += 1


def build(types: memoryview, strings: bytes | memoryview) -> Index:
    """Walk all types; BtfError when the section is cut short or holds an unknown kind."""
    offsets, names = _walk(types, bytes(strings))
    return Index(memoryview(offsets), memoryview(names))


def _walk(types: memoryview, strings: bytes) -> tuple[array[int], array[int]]:
    if len(types) % 4:
        raise BtfError("BTF types are not aligned to 4 bytes")
    words = types.cast("I")
    offsets, names = array("I"), array("Q")
    size, place, number = len(words), 0, 0
    while place + 3 <= size:
        number += 1
        name, info = words[place], words[place + 1]
        kind = info >> 24 & 31
        if not 1 <= kind < len(_FIXED):
            raise BtfError(f"BTF type {number} is of an unknown kind, {kind}")
        offsets.append(place * 4)
        if name:
            end = strings.find(b"\0", name)
            if end < 0:
                raise BtfError(f"BTF type {number}'s name lies outside the strings")
            names.append(zlib.crc32(strings[name:end]) << 32 | number)
        place += 3 + (_FIXED[kind] + _EACH[kind] * (info & 0xFFFF)) // 4
    if place != size:
        raise BtfError("BTF types are cut short")
    return offsets, array("Q", sorted(names))


def default_directory() -> str:
    """Where the index is kept: the rule of ``host.paths.cache()``, which ``bpf`` may not import."""
    if chosen := os.environ.get("BAZAAR_CACHE"):
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/cache/bazaar"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "bazaar")


def build_id() -> str:
    """The running kernel's build id from /sys/kernel/notes; "" when it tells none."""
    try:
        with open("/sys/kernel/notes", "rb") as file:
            notes = file.read()
    except OSError:
        return ""
    place = 0
    while place + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, place)
        start = place + 12 + (name_size + 3 & ~3)
        if kind == 3 and notes[place + 12 : place + 12 + name_size] == b"GNU\0":
            return notes[start : start + min(size, 64)].hex()
        place = start + (size + 3 & ~3)
    return ""


def fingerprint(blob: bytes | mmap.mmap) -> int:
    """Tells blobs apart without reading all: builds made twice may share a build id."""
    edge = 1 << 15
    middle = len(blob) // 2
    value = zlib.crc32(blob[:edge])
    value = zlib.crc32(blob[middle : middle + edge], value)
    return zlib.crc32(blob[-edge:], value)


def cached(path: str, blob: bytes | mmap.mmap, types: memoryview, strings: memoryview) -> Index:
    """The index in a file, made anew where it is missing, damaged or of another blob.

    A directory that cannot be written only costs time: the index then stays in memory.
    """
    found = _read(path, blob)
    if found is not None:
        return found
    offsets, names = _walk(types, bytes(strings))
    _write(path, blob, offsets, names)
    return Index(memoryview(offsets), memoryview(names))


def _write(path: str, blob: bytes | mmap.mmap, offsets: array[int], names: array[int]) -> None:
    body = offsets.tobytes()
    body += b"\0" * (-len(body) % 8) + names.tobytes()
    head = _HEAD.pack(
        _MAGIC, _VERSION, zlib.crc32(body), len(blob), fingerprint(blob),
        len(offsets), len(names), 0, 0,
    )  # fmt: skip
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # No fsync: a torn file fails its checksum and is made again.
        with open(temporary, "wb") as file:
            file.write(head + body)
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _read(path: str, blob: bytes | mmap.mmap) -> Index | None:
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    except (OSError, ValueError):
        return None
    view = memoryview(content)
    if len(view) < _HEAD.size:
        return None
    magic, version, checksum, length, mark, count, named, _, _ = _HEAD.unpack_from(view)
    start = _HEAD.size
    middle = start + (count * 4 + 7 & ~7)
    if (
        magic != _MAGIC
        or version != _VERSION
        or length != len(blob)
        or mark != fingerprint(blob)
        or len(view) != middle + named * 8
        or checksum != zlib.crc32(view[start:])
    ):
        return None
    return Index(view[start : start + count * 4].cast("I"), view[middle:].cast("Q"))
