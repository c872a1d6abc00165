"""What watches a running bazaar: its probes and its shield, held by the supervisor."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bazaar.errors import BazaarError
from bazaar.host import paths
from bazaar.spec.resolved import ResolvedBazaar, ResolvedProbe, ResolvedShield

if TYPE_CHECKING:
    from bazaar.shield.guard import Guard
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
        self._paused_until: float | None = None
        self._changing = threading.Lock()
        # Of what is looked at: never held while programs are compiled or loaded.
        self._lock = threading.RLock()

    def apply(self, wanted: ResolvedBazaar, emit: Emit) -> None:
        """Attach what is new, take away what is gone, leave what stays as it is."""
        with self._changing:
            probes = {probe.name: probe for probe in wanted.probes}
            for name, watch in list(self.watches.items()):
                if probes.get(name) != watch.probe:
                    with self._lock:
                        del self.watches[name]
                        self._remove(watch)
            for name, probe in probes.items():
                watch = self.watches.get(name)
                if watch is None or watch.problem:
                    watch = self._attach(probe, emit)
                    with self._lock:
                        self.watches[name] = watch
            self._apply_shield(wanted, emit)

    def _attach(self, probe: ResolvedProbe, emit: Emit) -> Watch:
        began = time.monotonic()
        try:
            session = self._session(probe)
        except BazaarError as error:
            emit({"kind": "probe", "name": probe.name, "problem": str(error)})
            return Watch(probe, problem=str(error))
        emit({"kind": "probe", "name": probe.name, "seconds": time.monotonic() - began})
        return Watch(probe, session)

    def _session(self, probe: ResolvedProbe) -> Session:
        """The session a killed supervisor left, with all it counted, or a new one."""
        from bazaar import trace

        directory, description = self._pins(probe.name), self._state(probe.name)
        try:
            session = trace.adopt(directory, description)
        except BazaarError:
            session = None  # unreadable or half: attached anew below
        if session is not None and session.compiled.text == probe.text:
            return session
        if session is not None:
            session.close()
        trace.remove(directory, description)
        session = trace.attach(trace.compile(probe.text))
        trace.pin(session, directory, description)
        return session

    def _remove(self, watch: Watch) -> None:
        from bazaar import trace

        if watch.session is not None:
            watch.session.close()
        trace.remove(self._pins(watch.probe.name), self._state(watch.probe.name))

    def _apply_shield(self, wanted: ResolvedBazaar, emit: Emit) -> None:
        if wanted.shield is None:
            with self._lock:
                if self.guard is not None:
                    self.guard.detach()
                self.guard, self.shield, self.shield_problem = None, None, ""
            return
        began = time.monotonic()
        try:
            self._attach_shield(wanted, wanted.shield)
        except BazaarError as error:
            self.shield_problem = str(error)
            emit({"kind": "shield", "name": "shield", "problem": str(error)})
            return
        if self.shield is None:
            emit({"kind": "shield", "name": "shield", "seconds": time.monotonic() - began})
        self.shield, self.shield_problem = wanted.shield, ""

    def _attach_shield(self, wanted: ResolvedBazaar, shield: ResolvedShield) -> None:
        from bazaar.shield import guard
        from bazaar.shield.settings import ShieldSpec
        from bazaar.site import network

        ports = sorted({one.front_port for one in wanted.services if one.front_port is not None})
        spec = ShieldSpec(
            rate=max(1, round(shield.rate)),
            burst=shield.burst,
            allow=shield.allow,
            block_seconds=shield.block_seconds,
            mode=shield.mode,
            ports=tuple(("tcp", port) for port in ports),
        )
        if self.guard is not None:
            with self._lock:
                self.guard.configure(spec)
            return
        attached = guard.attach(
            self.bazaar,
            spec,
            (network.uplink(self.bazaar),),
            network.front_namespace(self.bazaar),
        )
        with self._lock:
            self.guard = attached

    def retry(self, wanted: ResolvedBazaar) -> None:
        """Try again what this machine forbade; it may have been mended since."""
        if self.shield_problem or any(watch.problem for watch in self.watches.values()):
            self.apply(wanted, lambda event: None)

    def pause(self, seconds: float) -> None:
        """Let the probes hear nothing for so long at most (a drill measures without them).

        0 ends it; whoever asked may have been killed, so it ends by itself as well.
        """
        from bazaar import trace

        paused = seconds > 0
        with self._lock:
            self._paused_until = time.monotonic() + seconds if paused else None
            for watch in self.watches.values():
                if watch.session is None or paused == (not watch.session.links):
                    continue
                change = trace.pause if paused else trace.resume
                change(watch.session, self._pins(watch.probe.name))

    def tick(self) -> None:
        """A few times a second."""
        with self._lock:
            if self._paused_until is not None and time.monotonic() > self._paused_until:
                self.pause(0)
            for watch in self.watches.values():
                if watch.session is not None:
                    watch.session.poll(0)
            if self.guard is not None:
                self.guard.tick()

    def release(self) -> None:
        """Let go, and leave all attached for the next supervisor."""
        with self._lock:
            for watch in self.watches.values():
                if watch.session is not None:
                    watch.session.close()
            if self.guard is not None:
                self.guard.close()

    def probes(self) -> list[dict[str, Any]]:
        """Each probe for status and metrics: maps as JSON values, figures, losses."""
        with self._lock:
            return [self._probe(watch) for watch in self.watches.values()]

    def _probe(self, watch: Watch) -> dict[str, Any]:
        from bazaar.trace import show

        answer: dict[str, Any] = {
            "name": watch.probe.name,
            "program": watch.probe.text,
            "maps": [],
            "text": "",
            "lost": 0,
            "runs": None,
            "nanoseconds": None,
            "problem": watch.problem,
        }
        if self._paused_until is not None and not watch.problem:
            answer["problem"] = "paused while a drill measures"
        if watch.session is None:
            return answer
        maps = watch.session.maps()
        figures = watch.session.figures
        return answer | {
            "maps": [json.loads(line) for line in show.json(maps).splitlines()],
            "text": show.text(maps),
            "lost": watch.session.lost,
            # The kernel counts runs only while somebody asked it to (kernel.bpf_stats_enabled).
            "runs": figures.runs or None,
            "nanoseconds": figures.nanoseconds / figures.runs if figures.runs else None,
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
                "mode": self.guard.mode,
                "attached": [asdict(attached) for attached in self.guard.attached],
                "passed": counters.passed,
                "dropped": counters.total_dropped,
                "would_drop": counters.total_would_drop,
                "reasons": counters.dropped,
                "blocked": [asdict(block) for block in self.guard.blocked()],
                "problem": "",
            }

    def _pins(self, probe: str) -> str:
        from bazaar.bpf import pins

        return f"{pins.top()}/{self.bazaar}/probes/{probe}"

    def _state(self, probe: str) -> Path:
        return paths.bazaar(self.bazaar) / "probes" / f"{probe}.json"
