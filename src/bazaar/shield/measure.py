"""What a flood costs legitimate clients: with the shield, without it, with nftables.

Each round goes through all phases, so that whatever else the machine does hits them alike.
The control floods a sink elsewhere: it tells what the generator itself takes of the cores,
and everything is measured against it. Figures are medians over the rounds, and so are the
ratios, each taken within its own round.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from bazaar.bpf import links, maps, programs
from bazaar.errors import BazaarError
from bazaar.host import namespaces
from bazaar.model.figure import Figure
from bazaar.shield import arena, devices, generator, load, opponents
from bazaar.shield.arena import Arena, Link
from bazaar.shield.guard import Guard
from bazaar.shield.settings import ShieldSpec

QUIET = "quiet"  # no flood; the shield stands
CONTROL = "control"  # the flood hits a sink elsewhere; the shield stands
SHIELD = "with_shield"
BARE = "without_shield"
NFT = {f"nftables_{hook}": hook for hook in opponents.HOOKS}
# What the goal is about comes twice a round, side by side.
PHASES = (QUIET, CONTROL, SHIELD, BARE, CONTROL, SHIELD, *NFT)
GOAL = 0.9
DROPPED = 0.9  # the flood arrived, and this much of it went no further
_LEAD = 0.4  # seconds the flood flows before the clients begin


@dataclass(frozen=True, slots=True)
class Sample:
    """One phase of one round."""

    load: load.Load
    flood: float  # packets a second that were sent
    dropped: float  # of them, the share the shield dropped


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure: seconds of load a phase, rounds, and the flood (packets a second)."""

    seconds: float = 3.0
    rounds: int = 3
    rate: int = 1_400_000
    sources: int = 4096
    connections: int = 16
    protocol: str = "udp"
    port: int = 9
    cpu: int | None = None  # pin the generator, and with it the work on what it sends
    phases: Sequence[str] = PHASES


def flood(
    name: str,
    guard: Guard,
    front: str,
    url: str,
    address: str,
    *,
    settings: Settings | None = None,
    allow_clients: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Sample]]:
    """Measure the HTTP service ``url`` at ``address`` in the namespace ``front``.

    ``guard`` is a shield at work there; interfaces of the arena are attached and detached, and
    its settings come back as they were. With ``allow_clients`` the measuring clients are on
    its allow list, for a single source of thousands of requests is what it is there to stop.
    """
    chosen = settings or Settings()
    mode = guard.mode
    samples: dict[str, list[Sample]] = {phase: [] for phase in chosen.phases}
    with arena.build(name, front, [address]) as made, _sink(made.decoy):
        run = _Run(guard, made, url, address, chosen)
        client = made.client.address
        try:
            guard.set_mode("on")
            if allow_clients:
                guard.allow(client)
            run.warm_up()
            for number in range(chosen.rounds):
                for phase in chosen.phases:
                    progress(f"flood: round {number + 1}/{chosen.rounds}, {phase}")
                    samples[phase].append(run.phase(phase))
        finally:
            run.leave()
            run.forget()
            if allow_clients:
                guard.disallow(client)
            guard.set_mode(mode)
    return samples


class _Run:
    def __init__(
        self, guard: Guard, made: Arena, url: str, address: str, settings: Settings
    ) -> None:
        self.guard = guard
        self.arena = made
        self.url = url
        self.address = address
        self.settings = settings

    def warm_up(self) -> None:
        load.http(self.url, self.arena.client.namespace, seconds=1, connections=4)

    def phase(self, phase: str) -> Sample:
        with contextlib.ExitStack() as stack:
            if phase in {QUIET, CONTROL, SHIELD}:
                self.enter()
            else:
                self.leave()
            if phase in NFT:
                ends = [self.arena.client.door_interface, self.arena.attacker.door_interface]
                spec = replace(self.guard.spec, allow=(self.arena.client.address,))
                stack.enter_context(opponents.nftables(NFT[phase], spec, ends, self.arena.front))
            self.forget()
            if phase == QUIET:
                return Sample(self.clients(), 0.0, 0.0)
            target = self.arena.decoy if phase == CONTROL else self.arena.attacker
            before = self.guard.counters().total_dropped
            running = stack.enter_context(generator.start(self.flood(target)))
            time.sleep(_LEAD)
            got = self.clients()
            sent = running.stop()
            dropped = self.guard.counters().total_dropped - before
            return Sample(got, sent.rate, dropped / sent.packets if sent.packets else 0.0)

    def clients(self) -> load.Load:
        chosen = self.settings
        return load.http(
            self.url,
            self.arena.client.namespace,
            seconds=chosen.seconds,
            connections=chosen.connections,
        )

    def flood(self, target: Link) -> generator.Flood:
        chosen = self.settings
        seconds = chosen.seconds + _LEAD + 3.0
        return generator.Flood(
            target.namespace,
            target.interface,
            self.address,
            target.door_mac,
            protocol=chosen.protocol,
            port=chosen.port,
            network=arena.SOURCES,
            sources=chosen.sources,
            rate=chosen.rate,
            packets=int(chosen.rate * seconds),
            seconds=seconds,
            cpu=chosen.cpu,
        )

    def enter(self) -> None:
        """The shield at both uplinks."""
        for link in (self.arena.client, self.arena.attacker):
            self.guard.attach_interface(link.door_interface, link.door_namespace)

    def leave(self) -> None:
        """No XDP program there, but receive offload, without which no frame would arrive."""
        for link in (self.arena.client, self.arena.attacker):
            self.guard.detach_interface(link.door_interface, link.door_namespace)
            devices.receive_offload(link.door_interface, True, link.door_namespace)

    def forget(self) -> None:
        """Each phase begins with nobody blocked of those who flood."""
        for blocked in self.guard.blocked():
            if blocked.source.startswith("198.18."):
                self.guard.unblock(blocked.source)


@contextlib.contextmanager
def _sink(link: Link) -> Generator[None]:
    """Drop everything at the sink by the shortest program there is."""
    from bazaar.bpf import asm

    code = (asm.mov64_imm(asm.R0, 1), asm.exit_())
    spec = programs.ProgramSpec(
        "bazaar_sink", programs.ProgramType.XDP, code, "GPL", programs.AttachType.XDP
    )
    empty: dict[str, maps.Map] = {}
    with programs.load(spec, empty) as program:
        index = devices.index(link.door_interface, link.door_namespace)
        with namespaces.enter(link.door_namespace):
            attached = links.xdp(program, index)
        with attached:
            yield


def clients(spec: ShieldSpec, *, allowed: bool) -> str:
    """How the rule for a source meets the measuring clients, who are one source together."""
    if allowed:
        return "the clients, one source, are on the allow list"
    return f"the clients, one source, may send {spec.rate:,} packets/s"


def figures(
    samples: dict[str, list[Sample]], prefix: str = "flood", *, note: str = ""
) -> list[Figure]:
    """Medians of the rounds as figures; requests a second, with the control as the measure.

    ``note`` goes with the shield's: how its rules meet the `clients`.
    """
    medians = {phase: _median(found) for phase, found in samples.items() if found}
    control = medians.get(CONTROL)
    if control is None:
        raise BazaarError("a flood is measured against its control, which did not run")
    rivals = {phase: medians[phase] for phase in NFT if phase in medians}
    result = [
        Figure(f"{prefix}.rate", _flood_rate(samples), "packets/s", goal=">= 1000000",
               holds=_flood_rate(samples) >= 1_000_000),
    ]  # fmt: skip
    if samples.get(SHIELD):
        dropped = statistics.median(sample.dropped for sample in samples[SHIELD])
        result.append(
            Figure(f"{prefix}.dropped", round(dropped, 3), "share", goal=f">= {DROPPED:g}",
                   holds=dropped >= DROPPED, note="of the packets sent at the shield")
        )  # fmt: skip
    for phase, got in medians.items():
        notes = (f"{got.errors} errors" if got.errors else "", note if phase == SHIELD else "")
        goal = f">= {GOAL:g} of control" if phase == SHIELD else None
        ratio = _ratio(samples[phase], samples[CONTROL])
        result.append(
            Figure(
                f"{prefix}.{phase}",
                round(got.requests_per_second, 1),
                "requests/s",
                "control" if phase != CONTROL else None,
                round(control.requests_per_second, 1) if phase != CONTROL else None,
                round(ratio, 3) if phase != CONTROL else None,
                goal,
                ratio >= GOAL if goal else None,
                note="; ".join(filter(None, notes)),
            )
        )
        result.append(Figure(f"{prefix}.{phase}.p99", _finite(got.p99), "ms",
                             "control", _finite(control.p99)))  # fmt: skip
    if rivals and SHIELD in medians:
        name, best = max(rivals.items(), key=lambda item: item[1].requests_per_second)
        shield = medians[SHIELD].requests_per_second
        result.append(
            Figure(
                f"{prefix}.shield_or_nftables",
                round(shield, 1),
                "requests/s",
                name.replace("_", " "),
                round(best.requests_per_second, 1),
                round(shield / max(best.requests_per_second, 1e-9), 3),
                note="the better of both hooks",
            )
        )
    return result


def _median(found: list[Sample]) -> load.Load:
    return load.Load(
        statistics.median(sample.load.requests_per_second for sample in found),
        statistics.median(sample.load.p50 for sample in found),
        statistics.median(sample.load.p99 for sample in found),
        sum(sample.load.errors for sample in found),
    )


def _ratio(found: list[Sample], reference: list[Sample]) -> float:
    """How much of the reference, round by round; the median of that."""
    step = max(1, len(reference) // len(found))
    return statistics.median(
        one.load.requests_per_second / max(other.load.requests_per_second, 1e-9)
        for one, other in zip(found, reference[::step], strict=False)
    )


def _flood_rate(samples: dict[str, list[Sample]]) -> float:
    """Packets a second the generator attempted against the shield."""
    rates = [sample.flood for sample in samples.get(SHIELD, [])]
    return round(statistics.median(rates)) if rates else 0.0


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


__all__ = ["PHASES", "Guard", "Sample", "Settings", "ShieldSpec", "figures", "flood"]
