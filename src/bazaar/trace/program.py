"""A compiled trace program: the blueprint of its maps, BPF programs and events."""

from __future__ import annotations

from collections.abc import Sequence

from bazaar.bpf.asm import Instruction
from bazaar.bpf.maps import MapSpec, MapType
from bazaar.bpf.programs import ProgramSpec, ProgramType
from bazaar.errors import TraceError
from bazaar.model.record import record
from bazaar.trace.check import check
from bazaar.trace.layout import Action, MapLayout
from bazaar.trace.lexer import error_at
from bazaar.trace.lower import (
    CONTAINERS,
    COUNTERS,
    EVENTS,
    START,
    ZEROES,
    Lowered,
    Options,
    lower,
)
from bazaar.trace.parser import parse
from bazaar.trace.points import ProbePoint
from bazaar.trace.types import Container

LONGEST = 30_000  # operations of one program's IR
MOST_CONTAINERS = 4096  # control groups of the containers that a program is restricted to
EVENT_BYTES = 1 << 20  # of the ring buffer: a power of two
_TYPES = {
    "BEGIN": ProgramType.RAW_TRACEPOINT,
    "END": ProgramType.RAW_TRACEPOINT,
    "tracepoint": ProgramType.TRACEPOINT,
    "rawtracepoint": ProgramType.RAW_TRACEPOINT,
    "interval": ProgramType.PERF_EVENT,
    "profile": ProgramType.PERF_EVENT,
}


@record
class Plan:
    """One BPF program and the places it is attached to."""

    points: tuple[ProbePoint, ...]
    spec: ProgramSpec

    @property
    def kind(self) -> str:
        return self.points[0].kind


@record
class Compiled:
    """What ``compile`` gives: nothing of it is in the kernel yet."""

    text: str
    options: Options
    plans: tuple[Plan, ...]
    layouts: tuple[MapLayout, ...]
    actions: tuple[Action, ...]
    map_specs: tuple[tuple[str, MapSpec], ...]  # by the names the programs use

    @property
    def probes(self) -> int:
        """How many probes it attaches."""
        return sum(len(plan.points) for plan in self.plans)

    @property
    def shows_containers(self) -> bool:
        """Whether containers' names are needed to show its values."""
        kinds = [kind for layout in self.layouts for kind in (*layout.keys, layout.value)]
        kinds += [kind for action in self.actions for kind in getattr(action, "kinds", ())]
        kinds += [action.kind for action in self.actions if hasattr(action, "kind")]  # pyright: ignore
        return any(isinstance(kind, Container) for kind in kinds)

    @property
    def digest(self) -> str:
        """Equal when maps and events are laid out alike, so that pinned ones can be taken over."""
        import hashlib

        told = repr(
            (self.layouts, self.actions, self.map_specs, [plan.points for plan in self.plans])
        )
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def compile(  # noqa: A001 - what it does
    text: str,
    *,
    parameters: Sequence[str] = (),
    pid: int = 0,
    child: int = 0,
    file: str = "program",
    containers: Sequence[str] = (),
) -> Compiled:
    """Compile a trace program.

    ``parameters`` are ``$1``, ``$2`` …; with ``pid`` only that process's events count, with
    ``containers`` only those of containers that are shown by these names; ``child`` is
    ``cpid``; ``file`` is what the verifier's errors call the text. Raises TraceError, which
    points into the text, for anything that is wrong with it.
    """
    from bazaar.bpf.emit import emit, scratch_map
    from bazaar.bpf.passes import optimise

    options = Options(tuple(parameters), pid, child, file, tuple(containers))
    try:
        checked = check(text, parse(text), options.parameters)
        lowered = lower(checked, options)
    except RecursionError:
        raise error_at(text, "the program is nested too deeply", (0, 1)) from None
    specs = _maps(lowered)
    if options.containers:
        specs[CONTAINERS] = MapSpec(CONTAINERS, MapType.HASH, 8, 1, MOST_CONTAINERS)
    plans: list[Plan] = []
    for unit, function in zip(checked.units, lowered.functions, strict=True):
        if len(function.code) > LONGEST:
            message = "this clause becomes more than the kernel's verifier would take"
            raise error_at(text, message, unit.clause.span, "unroll less, or use shorter strings")
        function = optimise(function)
        instructions: tuple[Instruction, ...] = tuple(emit(function))
        scratch = scratch_map(function)
        if scratch is not None:
            if scratch.value_size > 32768:
                raise error_at(
                    text, "this clause needs too much memory for its strings", unit.clause.span
                )
            specs[scratch.name] = scratch
        kind = _TYPES[unit.point.kind]
        plans.append(Plan(tuple(unit.points), ProgramSpec(function.name, kind, instructions)))
    return Compiled(
        text,
        options,
        tuple(plans),
        tuple(lowered.maps.values()),
        tuple(lowered.actions),
        tuple(specs.items()),
    )


def _maps(lowered: Lowered) -> dict[str, MapSpec]:
    specs = {name: layout.spec() for name, layout in lowered.maps.items()}
    for layout in lowered.maps.values():
        if layout.key_size > 512 or layout.value_size > 32760:
            raise TraceError(f"{layout.name} has keys or values that are too big for the kernel")
    if lowered.actions:
        specs[EVENTS] = MapSpec(EVENTS, MapType.RINGBUF, max_entries=EVENT_BYTES)
    counters = 8 * (1 + len(lowered.maps))
    specs[COUNTERS] = MapSpec(COUNTERS, MapType.PERCPU_ARRAY, 4, counters, 1)
    if lowered.zeroes:
        specs[ZEROES] = MapSpec(ZEROES, MapType.ARRAY, 4, lowered.zeroes, 1)
    if lowered.elapsed:
        specs[START] = MapSpec(START, MapType.ARRAY, 4, 8, 1)
    return specs
