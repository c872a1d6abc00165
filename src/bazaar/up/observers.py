"""What watches a running bazaar: its probes and its shield, held by the supervisor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bazaar.errors import BazaarError
from bazaar.host import paths
from bazaar.spec.resolved import ResolvedBazaar, ResolvedProbe, ResolvedShield

if TYPE_CHECKING:
    from bazaar.shield import Guard
    from bazaar.trace import Session

Emit = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Watch:
    """One probe: attached, or with what keeps it from being so."""

    probe: ResolvedProbe
    session: Session | None = None
    problem: str = ""


class Observers:
    """Probes and shield of one bazaar; what this machine forbids is noted, not fatal."""

    def __init__(self, bazaar: str) -> None:
        self.bazaar = bazaar
        self.watches: dict[str, Watch] = {}
        self.guard: Guard | None = None
        self.shield: ResolvedShield | None = None
        self.shield_problem = ""
        self._lock = threading.RLock()

    def apply(self, wanted: ResolvedBazaar, emit: Emit) -> None:
        """Attach what is new, take away what is gone, leave what stays as it is."""
        with self._lock:
            probes = {probe.name: probe for probe in wanted.probes}
            for name, watch in list(self.watches.items()):
                if probes.get(name) != watch.probe:
                    self._detach(watch, keep=False)
                    del self.watches[name]
            for name, probe in probes.items():
                watch = self.watches.get(name)
                if watch is None or watch.problem:
                    self.watches[name] = self._attach(probe, emit)
            self._apply_shield(wanted, emit)

    def _attach(self, probe: ResolvedProbe, emit: Emit) -> Watch:
        from bazaar import trace

        began = time.monotonic()
        try:
            session = trace.attach(
                trace.compile(probe.text),
                keep=self._pins(probe.name),
                state=self._state(probe.name),
            )
        except BazaarError as error:
            emit({"kind": "probe", "name": probe.name, "problem": str(error)})
            return Watch(probe, problem=str(error))
        emit({"kind": "probe", "name": probe.name, "seconds": time.monotonic() - began})
        return Watch(probe, session)

    def _detach(self, watch: Watch, *, keep: bool) -> None:
        if watch.session is not None:
            watch.session.close(keep=keep)

    def _apply_shield(self, wanted: ResolvedBazaar, emit: Emit) -> None:
        from bazaar import shield
        from bazaar.site import network

        ports = tuple(
            (front.mode, front.port) for front in wanted.services if front.port is not None
        )
        if wanted.shield is None:
            if self.guard is not None:
                self.guard.detach()
            self.guard, self.shield, self.shield_problem = None, None, ""
            return
        began = time.monotonic()
        try:
            spec = shield.ShieldSpec(
                rate=wanted.shield.rate,
                burst=wanted.shield.burst,
                allow=wanted.shield.allow,
                block_seconds=wanted.shield.block_seconds,
                mode=wanted.shield.mode,
                ports=tuple(("tcp", port) for _, port in ports),
            )
            self.guard = shield.attach(
                self.bazaar,
                spec,
                (network.uplink(self.bazaar),),
                network.front_namespace(self.bazaar),
            )
        except BazaarError as error:
            self.shield_problem = str(error)
            emit({"kind": "shield", "name": "shield", "problem": str(error)})
            return
        if self.shield is None:
            emit({"kind": "shield", "name": "shield", "seconds": time.monotonic() - began})
        self.shield, self.shield_problem = wanted.shield, ""

    def tick(self) -> None:
        """A few times a second."""
        with self._lock:
            for watch in self.watches.values():
                if watch.session is not None:
                    watch.session.poll(0)
            if self.guard is not None:
                self.guard.tick()

    def release(self) -> None:
        """Let go, and leave all attached for the next supervisor."""
        with self._lock:
            for watch in self.watches.values():
                self._detach(watch, keep=True)

    def probes(self) -> list[dict[str, Any]]:
        """Each probe for status and metrics: maps as JSON values, figures, losses."""
        with self._lock:
            return [self._probe(watch) for watch in self.watches.values()]

    def _probe(self, watch: Watch) -> dict[str, Any]:
        from bazaar.trace import show

        answer: dict[str, Any] = {"name": watch.probe.name, "program": watch.probe.text}
        answer |= {"maps": [], "text": "", "lost": 0, "events": 0, "nanoseconds": None}
        answer["problem"] = watch.problem
        if watch.session is None:
            return answer
        maps = watch.session.maps()
        figures = watch.session.figures
        return answer | {
            "maps": show.json_maps(maps),
            "text": show.text(maps),
            "lost": watch.session.lost,
            "events": figures.events,
            "nanoseconds": figures.nanoseconds,
        }

    def shield_status(self) -> dict[str, Any] | None:
        """The shield's mode, counters and block list; None where none is wanted."""
        with self._lock:
            if self.guard is None or self.shield is None:
                if not self.shield_problem:
                    return None
                return {
                    "mode": "missing",
                    "passed": 0,
                    "dropped": 0,
                    "blocked": [],
                    "problem": self.shield_problem,
                }
            counters = self.guard.counters()
            return {
                "mode": self.shield.mode,
                "attached": self.guard.attached,
                "passed": counters.passed,
                "dropped": counters.dropped,
                "counters": asdict(counters),
                "blocked": [asdict(block) for block in self.guard.blocked()],
                "problem": "",
            }

    def _pins(self, probe: str) -> str:
        return f"/sys/fs/bpf/bazaar/{self.bazaar}/probes/{probe}"

    def _state(self, probe: str) -> str:
        return str(paths.bazaar(self.bazaar) / "probes" / f"{probe}.json")
