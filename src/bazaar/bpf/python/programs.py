"""The decorators that make a Python function a BPF program, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from bazaar.bpf.maps import MapSpec
from bazaar.bpf.programs import AttachType, ProgramType
from bazaar.bpf.python.calls import INLINE
from bazaar.bpf.python.contexts import (
    XDP_PASS,
    Context,
    RawTracepointContext,
    SkBuff,
    TracepointContext,
    XdpContext,
)
from bazaar.bpf.python.statements import compile_function

if TYPE_CHECKING:
    from bazaar.bpf.asm import Instruction
    from bazaar.bpf.ir import Function
    from bazaar.bpf.maps import Map
    from bazaar.bpf.programs import Program, ProgramSpec

C = TypeVar("C", bound=Context)
F = TypeVar("F", bound=Callable[..., Any])


class Compiled:
    """A program compiled from Python; compiling happens when it is first looked at.

    ``maps`` are the blueprints of all maps it uses (also the compiler's own scratch memory);
    ``load`` wants each of them by name.
    """

    def __init__(
        self,
        function: Callable[[Any], int],
        type_: ProgramType,
        context: type[Context],
        *,
        expected_attach_type: int = 0,
        bail: int = 0,
    ) -> None:
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.function = function
        self.type = type_
        self.context = context
        self.expected_attach_type = expected_attach_type
        self.bail = bail

    @cached_property
    def _lowered(self) -> tuple[Function, tuple[MapSpec, ...]]:
        return compile_function(self.function, self.context, bail=self.bail)

    @cached_property
    def ir(self) -> Function:
        """The intermediate representation after all passes."""
        from bazaar.bpf.passes import optimise

        return optimise(self._lowered[0])

    @property
    def unoptimised(self) -> Function:
        """The intermediate representation as the front-end made it."""
        return self._lowered[0]

    @cached_property
    def instructions(self) -> tuple[Instruction, ...]:
        """The program."""
        from bazaar.bpf.emit import emit

        return tuple(emit(self.ir))

    @cached_property
    def maps(self) -> tuple[MapSpec, ...]:
        """Blueprints of the maps."""
        from bazaar.bpf.emit import scratch_map

        scratch = scratch_map(self._lowered[0])
        return self._lowered[1] + ((scratch,) if scratch else ())

    @property
    def spec(self) -> ProgramSpec:
        """What `bazaar.bpf.programs.load` takes."""
        from bazaar.bpf.programs import ProgramSpec

        return ProgramSpec(
            self.name,
            self.type,
            self.instructions,
            expected_attach_type=self.expected_attach_type,
        )

    def create_maps(self, known: Mapping[str, Map] | None = None) -> dict[str, Map]:
        """The maps by name; those not among ``known`` are created."""
        from bazaar.bpf.maps import create

        known = known or {}
        return {spec.name: known.get(spec.name) or create(spec) for spec in self.maps}

    def load(self, maps: Mapping[str, Map]) -> Program:
        """Load into the kernel; VerifierError shows the Python line the verifier refuses."""
        from bazaar.bpf.programs import load

        return load(self.spec, maps)


def xdp(function: Callable[[XdpContext], int]) -> Compiled:
    """An XDP program: sees every frame a network interface receives, before anything else."""
    return Compiled(
        function,
        ProgramType.XDP,
        XdpContext,
        expected_attach_type=int(AttachType.XDP),
        bail=XDP_PASS,
    )


def tcx(function: Callable[[SkBuff], int]) -> Compiled:
    """A program at an interface's tc hook, ingress or egress as it is attached."""
    return Compiled(function, ProgramType.SCHED_CLS, SkBuff)


def cgroup_ingress(function: Callable[[SkBuff], int]) -> Compiled:
    """Sees the packets a cgroup's sockets receive, from the IP header on; 1 lets them pass."""
    attach = int(AttachType.CGROUP_INET_INGRESS)
    return Compiled(function, ProgramType.CGROUP_SKB, SkBuff, expected_attach_type=attach, bail=1)


def cgroup_egress(function: Callable[[SkBuff], int]) -> Compiled:
    """Sees the packets a cgroup's sockets send, from the IP header on; 1 lets them pass."""
    attach = int(AttachType.CGROUP_INET_EGRESS)
    return Compiled(function, ProgramType.CGROUP_SKB, SkBuff, expected_attach_type=attach, bail=1)


def tracepoint(function: Callable[[C], int]) -> Compiled:
    """Runs at a tracepoint; the context is a subclass of `TracepointContext`."""
    return Compiled(function, ProgramType.TRACEPOINT, TracepointContext)


def raw_tracepoint(function: Callable[[RawTracepointContext], int]) -> Compiled:
    """Runs at a raw tracepoint, with its arguments as numbers."""
    return Compiled(function, ProgramType.RAW_TRACEPOINT, RawTracepointContext)


def function(function: F) -> F:
    """A function programs may call; it is compiled into each call's place."""
    setattr(function, INLINE, True)
    return function
