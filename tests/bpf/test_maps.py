"""Maps of every type on the real kernel."""

from __future__ import annotations

import errno
import os
import struct
import threading

import pytest

from bazaar.bpf import maps, pins, programs
from bazaar.bpf.maps import MapFlag, MapSpec, MapType, parse_cpus, possible_cpus
from bazaar.bpf.programs import ProgramSpec, ProgramType
from bazaar.bpf.syscall import Descriptor
from bazaar.errors import KernelError, UsageError
from tests.bpf import kernel

pytestmark = kernel.root


def key(number: int) -> bytes:
    return struct.pack("<I", number)


def value(number: int) -> bytes:
    return struct.pack("<Q", number)


PLAIN = [MapType.HASH, MapType.LRU_HASH, MapType.ARRAY]
PER_CPU = [MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.PERCPU_ARRAY]
ARRAYS = {MapType.ARRAY, MapType.PERCPU_ARRAY}


@pytest.mark.parametrize("kind", PLAIN)
def test_one_element(kind: MapType) -> None:
    with maps.create(MapSpec(kernel.unique(), kind, 4, 8, 10)) as table:
        table.update(key(3), value(33))
        assert table.lookup(key(3)) == value(33)
        assert dict(table.items())[key(3)] == value(33)
        if kind in ARRAYS:
            assert len(list(table.keys())) == 10
            with pytest.raises(KernelError, match="beyond its 10 entries"):
                table.update(key(10), value(1))
            return
        assert table.lookup(key(4)) is None
        assert list(table.keys()) == [key(3)]
        with pytest.raises(KernelError) as refused:
            table.update(key(3), value(1), maps.NOEXIST)
        assert refused.value.errno == errno.EEXIST
        assert table.take(key(3)) == value(33)
        assert table.delete(key(3)) is False


@pytest.mark.parametrize("kind", PER_CPU)
def test_every_cpu_has_a_value(kind: MapType) -> None:
    # Twelve bytes: the kernel pads each CPU's value to sixteen.
    with maps.create(MapSpec(kernel.unique(), kind, 4, 12, 10)) as table:
        values = [bytes([cpu + 1]) * 12 for cpu in range(possible_cpus())]
        table.update_per_cpu(key(2), values)
        assert table.lookup_per_cpu(key(2)) == values
        assert dict(table.items_per_cpu())[key(2)] == values
        table.update(key(2), b"\7" * 12)
        assert table.lookup_per_cpu(key(2)) == [b"\7" * 12] * possible_cpus()
        with pytest.raises(UsageError, match="lookup_per_cpu"):
            table.lookup(key(2))
        with pytest.raises(UsageError, match="items_per_cpu"):
            table.items()


def test_a_program_counts_on_each_cpu_and_the_sum_is_right() -> None:
    spec = MapSpec("counts", MapType.PERCPU_ARRAY, 4, 8, 1)
    runs = {cpu: 10 * (cpu + 1) for cpu in os.sched_getaffinity(0)}
    with maps.create(spec) as counts:
        program_spec = ProgramSpec(kernel.unique(), ProgramType.RAW_TRACEPOINT, kernel.counting())
        with programs.load(program_spec, {"counts": counts}) as program:
            for cpu, times in runs.items():
                for _ in range(times):
                    program.run(cpu=cpu, flags=programs.RUN_ON_CPU)
        found = [struct.unpack("<Q", one)[0] for one in counts.lookup_per_cpu(key(0)) or []]
    assert sum(found) == sum(runs.values())
    assert {cpu: found[cpu] for cpu in runs} == runs


@pytest.mark.parametrize("kind", PLAIN + PER_CPU)
@pytest.mark.parametrize("batching", [True, False])
def test_many_elements(kind: MapType, batching: bool) -> None:
    count = 3000
    with maps.create(MapSpec(kernel.unique(), kind, 4, 8, count * 4)) as table:
        table._batching = batching
        table.update_batch([(key(number), value(number * 2)) for number in range(count)])
        if table.per_cpu:
            found = {one: each[0] for one, each in table.items_per_cpu()}
            assert all(len(each) == possible_cpus() for _, each in table.items_per_cpu())
        else:
            found = dict(table.items())
        assert {one: found[one] for one in map(key, range(count))} == {
            key(number): value(number * 2) for number in range(count)
        }
        assert table._batching is batching
        if kind in ARRAYS:
            assert len(found) == count * 4
            table.clear()
            assert not any(any(raw) for _, raw in table._items())
            return
        table.delete_batch([key(number) for number in range(0, count * 2, 2)])
        assert set(table.keys()) == {key(number) for number in range(1, count, 2)}
        assert len(list(table.take_all())) == count // 2
        assert list(table.keys()) == []


def test_items_of_an_empty_map_and_of_a_full_bucket() -> None:
    with maps.create(MapSpec(kernel.unique(), MapType.HASH, 4, 8, 1)) as table:
        assert list(table.items()) == []
        table.update(key(1), value(1))
        assert list(table.items()) == [(key(1), value(1))]
        with pytest.raises(KernelError, match="it is full") as full:
            table.update(key(2), value(1))
        assert full.value.errno == errno.E2BIG


def test_longest_prefix_match() -> None:
    def prefix(bits: int, *address: int) -> bytes:
        return struct.pack("<I4B", bits, *address)

    spec = MapSpec(kernel.unique(), MapType.LPM_TRIE, 8, 4, 100, MapFlag.NO_PREALLOC)
    with maps.create(spec) as trie:
        trie.update(prefix(8, 10, 0, 0, 0), key(1))
        trie.update(prefix(16, 10, 1, 0, 0), key(2))
        assert trie.lookup(prefix(32, 10, 1, 2, 3)) == key(2)
        assert trie.lookup(prefix(32, 10, 2, 2, 3)) == key(1)
        assert trie.lookup(prefix(32, 11, 2, 2, 3)) is None
        assert len(dict(trie.items())) == 2


@pytest.mark.parametrize(
    ("kind", "order"), [(MapType.QUEUE, [1, 2, 3]), (MapType.STACK, [3, 2, 1])]
)
def test_queue_and_stack(kind: MapType, order: list[int]) -> None:
    with maps.create(MapSpec(kernel.unique(), kind, 0, 4, 3)) as line:
        assert line.pop() is None
        for number in (1, 2, 3):
            line.push(key(number))
        with pytest.raises(KernelError):
            line.push(key(4))
        assert line.peek() == key(order[0])
        assert [line.pop() for _ in range(4)] == [*map(key, order), None]


@pytest.mark.parametrize("kind", [MapType.HASH_OF_MAPS, MapType.ARRAY_OF_MAPS])
def test_maps_of_maps(kind: MapType) -> None:
    inner = MapSpec("inner", MapType.HASH, 4, 8, 2)
    with maps.create(MapSpec(kernel.unique(), kind, 4, 4, 4, inner=inner)) as outer:
        with maps.create(inner) as one:
            outer.update_fd(key(2), one)
            assert outer.lookup(key(2)) == key(one.id)
            number = one.id
        # The outer map keeps the inner one.
        with maps.open_id(number) as again:
            assert again.spec == inner


def test_program_array() -> None:
    spec = MapSpec(kernel.unique(), MapType.PROG_ARRAY, 4, 4, 4)
    with maps.create(spec) as table, kernel.Counter(ProgramType.XDP) as counter:
        table.update_fd(key(1), counter.program)
        assert table.lookup(key(1)) == key(counter.program.id)
        table.delete(key(1))
        assert table.lookup(key(1)) is None


PAGE = os.sysconf("SC_PAGESIZE")
OTHERS = [
    MapSpec("x", MapType.PERF_EVENT_ARRAY, 4, 4, 0),
    MapSpec("x", MapType.STACK_TRACE, 4, 127 * 8, 16),
    MapSpec("x", MapType.CGROUP_ARRAY, 4, 4, 1),
    MapSpec("x", MapType.DEVMAP, 4, 4, 4),
    MapSpec("x", MapType.DEVMAP_HASH, 4, 8, 4),
    MapSpec("x", MapType.CPUMAP, 4, 4, 2),
    MapSpec("x", MapType.XSKMAP, 4, 4, 4),
    MapSpec("x", MapType.SOCKMAP, 4, 4, 4),
    MapSpec("x", MapType.RINGBUF, 0, 0, PAGE),
    MapSpec("x", MapType.USER_RINGBUF, 0, 0, PAGE),
    MapSpec("x", MapType.BLOOM_FILTER, 0, 4, 10, extra=3),
    MapSpec("x", MapType.TASK_STORAGE, 4, 24, 0, MapFlag.NO_PREALLOC),
    MapSpec("x", MapType.SK_STORAGE, 4, 4, 0, MapFlag.NO_PREALLOC),
    MapSpec("x", MapType.CGRP_STORAGE, 4, 8, 0, MapFlag.NO_PREALLOC),
]


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.type.name)
def test_the_kernel_agrees_with_the_blueprint(spec: MapSpec) -> None:
    with maps.create(spec) as made, maps.open_id(made.id) as seen:
        assert seen.spec.type == spec.type
        assert (seen.spec.key_size, seen.spec.value_size) == (spec.key_size, spec.value_size)
        assert seen.spec.extra == spec.extra


def test_an_array_mapped_into_memory() -> None:
    spec = MapSpec(kernel.unique(), MapType.ARRAY, 4, 12, 1000, MapFlag.MMAPABLE)
    with maps.create(spec) as table:
        memory = table.mmap()
        memory[16:28] = b"abcdefghijkl"
        assert table.lookup(key(1)) == b"abcdefghijkl"
        table.update(key(2), b"z" * 12)
        assert memory[32:44] == b"z" * 12
        memory.close()
    with (
        maps.create(MapSpec(kernel.unique(), MapType.ARRAY, 4, 8, 1)) as other,
        pytest.raises(KernelError, match="MMAPABLE"),
    ):
        other.mmap()


def test_a_frozen_map_refuses_writes() -> None:
    with maps.create(MapSpec(kernel.unique(), MapType.ARRAY, 4, 8, 1)) as table:
        table.freeze()
        with pytest.raises(KernelError) as refused:
            table.update(key(0), value(1))
        assert refused.value.errno == errno.EPERM


def test_pins_survive_closing() -> None:
    path = f"{pins.root()}/{kernel.unique()}/table"
    try:
        with maps.create(MapSpec("pinned", MapType.HASH, 4, 8, 5)) as table:
            table.update(key(1), value(11))
            table.pin(path)
            with pytest.raises(KernelError) as taken:
                table.pin(path)
            assert taken.value.errno == errno.EEXIST
        with maps.open_pinned(path) as again:
            assert again.lookup(key(1)) == value(11)
            assert again.spec == MapSpec("pinned", MapType.HASH, 4, 8, 5)
        pins.unpin(path)
        pins.unpin(path)
        with pytest.raises(KernelError) as gone:
            maps.open_pinned(path)
        assert gone.value.errno == errno.ENOENT
    finally:
        pins.remove_all(os.path.dirname(path))
    assert not os.path.exists(os.path.dirname(path))


def test_pins_elsewhere_are_refused() -> None:
    with maps.create(MapSpec("x", MapType.HASH, 4, 8, 5)) as table:
        with pytest.raises(UsageError, match="no dots"):
            table.pin(f"{pins.root()}/a.b")
        with pytest.raises(KernelError):
            table.pin(f"/tmp/{kernel.unique()}")
    with pytest.raises(KernelError, match="does not lie below"):
        pins.remove_all(f"{pins.root()}/../..")


def test_wrong_sizes_are_told_before_the_kernel_sees_them() -> None:
    with maps.create(MapSpec("table", MapType.HASH, 4, 8, 5)) as table:
        with pytest.raises(UsageError, match="the key has 3 bytes, 4 wanted"):
            table.lookup(b"abc")
        with pytest.raises(UsageError, match="the value has 1 bytes, 8 wanted"):
            table.update(key(1), b"x")
        with pytest.raises(UsageError, match="keys of 4 bytes"):
            table.update_batch([(b"12345", value(1))])
        with pytest.raises(UsageError, match="values of 8 bytes"):
            table.update_batch([(key(1), b"1")])


def test_what_the_kernel_refuses_to_make() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(
        KernelError, match=r"cannot create map 'nokey' \(hash\): Invalid argument"
    ) as no:
        maps.create(MapSpec("nokey", MapType.HASH, 0, 8, 5))
    assert "key 0 B, value 8 B, 5 entries" in (no.value.hint or "")
    with pytest.raises(KernelError):
        maps.create(
            MapSpec("x", MapType.HASH_OF_MAPS, 4, 3, 5, inner=MapSpec("i", MapType.ARRAY, 4, 8, 1))
        )
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_map_says_so_and_forgotten_ones_close() -> None:
    table = maps.create(MapSpec("x", MapType.ARRAY, 4, 8, 1))
    fd = table.fd
    table.close()
    table.close()
    with pytest.raises(KernelError, match="Map is closed"):
        table.lookup(key(0))
    forgotten = Descriptor(os.open("/dev/null", os.O_RDONLY))
    fd = forgotten.fd
    del forgotten
    with pytest.raises(OSError):
        os.fstat(fd)


def test_cpu_lists() -> None:
    assert parse_cpus("0-3,8\n") == [0, 1, 2, 3, 8]
    assert parse_cpus("0") == [0]
    assert parse_cpus("") == []


def test_threads_may_share_a_map() -> None:
    with maps.create(MapSpec("shared", MapType.HASH, 4, 8, 1000)) as table:
        table.update_batch([(key(number), value(number)) for number in range(1000)])
        wrong: list[int] = []

        def read(start: int) -> None:
            for number in range(start, 1000, 2):
                if table.lookup(key(number)) != value(number):
                    wrong.append(number)

        threads = [threading.Thread(target=read, args=(start % 2,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
