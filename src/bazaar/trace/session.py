"""An attached trace program: what it sends, what its maps hold, and what was lost."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, cast

from bazaar.bpf import links, perf, programs
from bazaar.bpf import maps as kernel_maps
from bazaar.bpf.maps import Map
from bazaar.bpf.programs import Program
from bazaar.bpf.ring_buffer import RingBuffer
from bazaar.errors import MissingError
from bazaar.model.record import record, replace
from bazaar.trace import formats, read
from bazaar.trace.layout import (
    Clear,
    Exit,
    MapLayout,
    PrintEntry,
    Printf,
    PrintMap,
    PrintValue,
    Time,
)
from bazaar.trace.lexer import error_at
from bazaar.trace.lower import CONTAINERS, COUNTERS, EVENTS, START
from bazaar.trace.points import ProbePoint
from bazaar.trace.program import Compiled, Plan
from bazaar.trace.read import MapValue, Statistics

_REFRESH = 1.0  # seconds between looks for new containers
_FEW = 4  # links that are closed one after another
_SIDE_BY_SIDE = 64


@record
class Output:
    """Something a program printed; ``kind`` is printf, time, value, map or entry."""

    kind: str
    data: str | int | MapValue


@record
class Losses:
    """What did not arrive: events the buffer had no room for, and keys per full map."""

    events: int
    keys: dict[str, int]

    @property
    def total(self) -> int:
        return self.events + sum(self.keys.values())


@record
class RunFigures:
    """What the kernel's statistics say of all programs together, while they are on."""

    runs: int
    nanoseconds: int


class Attached(Protocol):
    """A link, or a group of them."""

    def close(self) -> None: ...
    def pin(self, path: str) -> None: ...


class Session:
    """A program in the kernel; a context manager that takes it out again.

    ``attach`` and ``adopt`` make it. ``finished`` is true once the program called exit().
    """

    def __init__(self, compiled: Compiled, maps: dict[str, Map]) -> None:
        self.compiled = compiled
        self.kernel_maps = maps
        self.programs: list[Program] = []
        self.links: list[Attached] = []
        self.ends: list[Program] = []
        self.finished = False
        self.exit_code = 0
        self._names: Any = None
        self._admission: Any = None
        self._ring = RingBuffer(maps[EVENTS]) if EVENTS in maps else None
        self._layouts = {layout.name: layout for layout in compiled.layouts}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Becomes readable when there is output; -1 for a program that prints nothing."""
        return self._ring.fileno() if self._ring else -1

    # What happens

    def poll(self, timeout: float = 0.0) -> list[Output]:
        """Wait up to ``timeout`` seconds for output, and give all there is, in order."""
        if self.compiled.shows_containers:
            # Containers are asked for while they live.
            self.names.refresh(every=_REFRESH)
        self.admit()
        if self._ring is None:
            time.sleep(timeout)
            return []
        self._ring.poll(timeout)
        return [output for record in self._ring for output in self._output(record)]

    def admit(self) -> None:
        """Let in what has come of the containers that the program is restricted to."""
        asked = self.compiled.options.containers
        if not asked:
            return
        if self._admission is None:
            from bazaar.trace.containers import Admission

            self._admission = Admission(asked, self.kernel_maps[CONTAINERS])
        self._admission.refresh(self.names)

    def _output(self, record: bytes) -> Iterator[Output]:
        action = self.compiled.actions[struct.unpack_from("<Q", record)[0]]
        payload = record[8:]
        match action:
            case Printf(pieces=pieces, kinds=kinds):
                values = read.decode_all(kinds, payload, self.resolve)
                yield Output("printf", formats.fill(pieces, values))
            case PrintValue(kind=kind):
                yield Output("value", read.decode(kind, payload, self.resolve))
            case PrintMap(map=name, top=top, divisor=divisor):
                yield Output(
                    "map", replace(self._read(self._layouts[name]), top=top, divisor=divisor)
                )
            case PrintEntry(map=name):
                yield from self._entry(self._layouts[name], payload)
            case Clear(map=name, zero=zero):
                self._clear(self._layouts[name], zero=zero)
            case Time(format=text):
                yield Output("time", time.strftime(text))
            case Exit():
                self.finished = True
                self.exit_code = struct.unpack_from("<q", payload)[0] & 0xFF

    def _entry(self, layout: MapLayout, key: bytes) -> Iterator[Output]:
        wanted = read.decode_key(layout, key[: layout.key_size], self.resolve)
        whole = self._read(layout)
        found = tuple(entry for entry in whole.entries if entry.key == wanted)
        if not layout.keys or whole.kind in ("hist", "lhist", "stats"):
            yield Output("entry", replace(whole, entries=found))
            return
        value = found[0].value if found else "" if whole.kind == "string" else 0
        yield Output(
            "value", value.average if isinstance(value, Statistics) else cast("int | str", value)
        )

    def _clear(self, layout: MapLayout, *, zero: bool) -> None:
        source = self.kernel_maps[layout.name]
        if not zero:
            source.clear()
            return
        empty = bytes(layout.value_size)
        for key in list(source.keys()):
            if layout.per_cpu:
                source.update_per_cpu(key, [empty] * kernel_maps.possible_cpus())
            else:
                source.update(key, empty)

    # What there is

    @property
    def names(self) -> Any:
        """The names of containers, bazaar.host.identity.Names."""
        if self._names is None:
            from bazaar.host.identity import Names

            self._names = Names()
        return self._names

    @names.setter
    def names(self, names: Any) -> None:
        self._names = names

    def resolve(self, cgroup: int) -> str:
        """The name of the container with this cgroup."""
        return self.names.name(cgroup)

    def maps(self) -> list[MapValue]:
        """All maps of the program by name, with what they hold now."""
        return [self._read(layout) for layout in self.compiled.layouts]

    def _read(self, layout: MapLayout) -> MapValue:
        return read.read(layout, self.kernel_maps[layout.name], self.resolve)

    @property
    def losses(self) -> Losses:
        """What was lost so far, in detail."""
        parts = self.kernel_maps[COUNTERS].lookup_per_cpu(bytes(4)) or []
        sums = [
            sum(words)
            for words in zip(
                *(struct.unpack(f"<{len(part) // 8}Q", part) for part in parts), strict=True
            )
        ]
        keys = {layout.name: sums[1 + layout.index] for layout in self.compiled.layouts}
        return Losses(sums[0], {name: count for name, count in keys.items() if count})

    @property
    def lost(self) -> int:
        """Events and keys lost so far."""
        return self.losses.total

    @property
    def figures(self) -> RunFigures:
        """Runs and their time, as far as the kernel counted them."""
        infos = [program.info() for program in self.programs]
        return RunFigures(sum(info.runs for info in infos), sum(info.run_ns for info in infos))

    # The end

    def finish(self) -> list[Output]:
        """Detach, run what END says, and give the last output; maps can still be read."""
        _detach(self.links)
        outputs = self.poll()
        for program in self.ends:
            program.run()
            outputs += self.poll()
        self.ends.clear()
        return outputs

    def close(self) -> None:
        """Take everything out of the kernel that is not pinned."""
        _detach(self.links)
        for program in self.programs:
            program.close()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        for item in self.kernel_maps.values():
            item.close()


def attach(compiled: Compiled, *, ready: Callable[[Session], None] | None = None) -> Session:
    """Load a program, run what BEGIN says, and attach it.

    ``ready`` is called before anything fires, with everything loaded. Raises TraceError where a
    place is not in this kernel, VerifierError, and KernelError or MissingError with what to do.
    """
    _require_root()
    maps: dict[str, Map] = {}
    session: Session | None = None
    try:
        for name, spec in compiled.map_specs:
            maps[name] = kernel_maps.create(spec)
        session = Session(compiled, maps)
        loaded = [(plan, programs.load(plan.spec, maps)) for plan in compiled.plans]
        session.programs = [program for _, program in loaded]
        session.ends = [program for plan, program in loaded if plan.kind == "END"]
        if START in maps:
            maps[START].update(
                bytes(4), struct.pack("<Q", time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            )
        session.admit()
        if ready:
            ready(session)
        for plan, program in loaded:
            if plan.kind == "BEGIN":
                program.run()
        link(session)
    except BaseException:
        if session is not None:
            session.close()
        for item in maps.values():
            item.close()
        raise
    return session


def link(session: Session) -> None:
    """Attach the session's programs to their places."""
    for plan, program in zip(session.compiled.plans, session.programs, strict=True):
        session.links += [_link(session.compiled, program, point) for point in _places(plan)]


def _detach(attached: list[Attached]) -> None:
    """Close links, which the kernel makes wait for one another: many of them side by side."""
    if len(attached) <= _FEW:
        for link in attached:
            link.close()
    else:
        import threading

        for start in range(0, len(attached), _SIDE_BY_SIDE):
            group = attached[start : start + _SIDE_BY_SIDE]
            threads = [threading.Thread(target=link.close) for link in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    attached.clear()


def _require_root() -> None:
    if os.geteuid() == 0:
        return
    raise MissingError("tracing needs to be root", hint="sudo bazaar trace …")


def _places(plan: Plan) -> tuple[ProbePoint, ...]:
    return () if plan.kind in ("BEGIN", "END") else plan.points


def _link(compiled: Compiled, program: Program, point: ProbePoint) -> Attached:
    if point.event is not None:
        return links.tracepoint(program, f"{point.event.category}:{point.event.name}")
    if point.kind == "rawtracepoint":
        try:
            return links.raw_tracepoint(program, point.name)
        except MissingError as error:
            raise error_at(compiled.text, error.message, point.span, error.hint) from error
    # An interval fires on one processor.
    cpus = None if point.kind == "profile" else perf.online_cpus()[:1]
    if point.frequency and point.kind == "interval":
        # A frequency is approached; an interval is meant exactly.
        return links.perf_event(program, period=1_000_000_000 // point.frequency, cpus=cpus)
    return links.perf_event(program, period=point.period, frequency=point.frequency, cpus=cpus)
