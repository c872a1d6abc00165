"""Maps as Python objects: declared once, used by compiled programs through these methods.

The bodies are not run: the compiler knows what each method means. In Python, `spec` is the
blueprint to create the map with, `encode_key`, `decode_value` and so on translate its bytes.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

from bazaar.bpf.maps import MapFlag, MapSpec, MapType
from bazaar.bpf.python.types import Layout, Scalar, Struct, decode, encode, layout_of
from bazaar.errors import UsageError

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound=Struct)


def outside() -> NoReturn:
    """What everything does that only means something in a compiled program."""
    raise UsageError("this can only be used in a function compiled to BPF")


class Declared:
    """What all maps have."""

    per_cpu = False

    def __init__(self, spec: MapSpec) -> None:
        self.spec = spec
        self.name = spec.name


class Keyed(Declared, Generic[K, V]):
    """A map with typed keys and values."""

    def __init__(
        self, type_: MapType, name: str, key: Any, value: Any, *, entries: int, flags: int
    ) -> None:
        self.key: Layout = layout_of(key, f"{name}: key")
        self.value: Layout = layout_of(value, f"{name}: value")
        super().__init__(MapSpec(name, type_, self.key.size, self.value.size, entries, flags))

    def lookup(self, key: K) -> V | None:
        """The value in place, or None. An int is read where it is used; a struct can be changed."""
        outside()

    def update(self, key: K, value: V, flags: int = 0) -> int:
        """Insert or replace: 0 or a negative errno. flags: 1 only new, 2 only existing."""
        outside()

    def delete(self, key: K) -> int:
        """Remove: 0 or a negative errno."""
        outside()

    def __contains__(self, key: K) -> bool:
        outside()

    def __getitem__(self, key: K) -> V:
        outside()

    def __setitem__(self, key: K, value: V) -> None:
        outside()

    def __delitem__(self, key: K) -> None:
        outside()

    def encode_key(self, key: K) -> bytes:
        """The key as the map's bytes."""
        return encode(self.key, key, f"{self.name}: key")

    def decode_key(self, data: bytes) -> K:
        """The key of the map's bytes."""
        return decode(self.key, data)

    def encode_value(self, value: V) -> bytes:
        """The value as the map's bytes."""
        return encode(self.value, value, f"{self.name}: value")

    def decode_value(self, data: bytes) -> V:
        """The value of the map's bytes (of one CPU)."""
        return decode(self.value, data)


class HashMap(Keyed[K, V]):
    """A hash table."""

    kind = MapType.HASH

    def __init__(
        self, name: str, *, key: type[K], value: type[V], max_entries: int, flags: int = 0
    ) -> None:
        super().__init__(self.kind, name, key, value, entries=max_entries, flags=flags)


class LruHashMap(HashMap[K, V]):
    """A hash table that drops the least recently used when it is full."""

    kind = MapType.LRU_HASH


class PerCpuHashMap(HashMap[K, V]):
    """A hash table with a value for each CPU."""

    kind = MapType.PERCPU_HASH
    per_cpu = True


class LruPerCpuHashMap(HashMap[K, V]):
    """A hash table with a value for each CPU that drops the least recently used."""

    kind = MapType.LRU_PERCPU_HASH
    per_cpu = True


class LpmTrie(Keyed[K, V]):
    """Longest prefix match; the key is a struct beginning with a `u32` prefix length in bits."""

    def __init__(self, name: str, *, key: type[K], value: type[V], max_entries: int) -> None:
        flags = int(MapFlag.NO_PREALLOC)
        super().__init__(MapType.LPM_TRIE, name, key, value, entries=max_entries, flags=flags)


class Array(Keyed[int, V]):
    """Values by index, all there from the start, zero."""

    kind = MapType.ARRAY

    def __init__(self, name: str, *, value: type[V], max_entries: int, flags: int = 0) -> None:
        from bazaar.bpf.python.types import u32

        super().__init__(self.kind, name, u32, value, entries=max_entries, flags=flags)


class PerCpuArray(Array[V]):
    """An array with a value for each CPU: counters without contention."""

    kind = MapType.PERCPU_ARRAY
    per_cpu = True


class Variable(Array[V]):
    """One value all programs share, without a lookup: ``settings.current.rate``."""

    def __init__(self, name: str, value: type[V]) -> None:
        super().__init__(name, value=value, max_entries=1)

    @property
    def current(self) -> V:
        """The value in place."""
        outside()


class RingBuffer(Declared):
    """Events to user space; ``size`` is a power of two, at least a page."""

    def __init__(self, name: str, *, size: int) -> None:
        super().__init__(MapSpec(name, MapType.RINGBUF, 0, 0, size))

    def reserve(self, event: type[S]) -> S | None:
        """Room for one event, or None when it is full; must be submitted or discarded."""
        outside()

    def submit(self, event: Struct, flags: int = 0) -> None:
        """Hand a reserved event over."""
        outside()

    def discard(self, event: Struct, flags: int = 0) -> None:
        """Give a reserved event back."""
        outside()

    def output(self, event: Struct, flags: int = 0) -> int:
        """Copy an event: 0 or a negative errno."""
        outside()


__all__ = [
    "Array", "Declared", "HashMap", "Keyed", "LpmTrie", "LruHashMap", "LruPerCpuHashMap",
    "PerCpuArray", "PerCpuHashMap", "RingBuffer", "Scalar", "Variable", "outside",
]  # fmt: skip
