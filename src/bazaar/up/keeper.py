"""Keeps one replica running: a thread that starts it, waits for its health and its end.

A replica that ends is started again after a pause that doubles from 0.1 s to 30 s and
begins anew once it has run for ten seconds (docker's restart policy).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bazaar.errors import BazaarError, EngineError
from bazaar.host import paths
from bazaar.host.files import read_json, write_json
from bazaar.model.container import ContainerSpec, ContainerState
from bazaar.model.site import Health
from bazaar.up import health

FIRST_PAUSE = 0.1  # seconds
LONGEST_PAUSE = 30.0
RAN_WELL = 10.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica as it is wanted: where it stands and the container it is."""

    bazaar: str
    service: str
    site: str
    number: int
    generation: int
    id: str  # the container's
    engine: str
    address: str
    port: int | None
    health: Health
    fingerprint: str  # of everything that, when changed, needs a new container
    container: ContainerSpec | None = None  # None: on its way out, not to be started again
    first_pause: float = FIRST_PAUSE
    longest_pause: float = LONGEST_PAUSE

    @property
    def name(self) -> str:
        """What people see and type: apache/brussels-u/1."""
        return f"{self.service}/{self.site}/{self.number}"

    @property
    def slot(self) -> tuple[str, str, int]:
        """Its place; during a rollout two replicas share one."""
        return (self.service, self.site, self.number)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a replica is doing, for status and for those who wait."""

    phase: str = "starting"  # starting | adopting | healthy | unhealthy | waiting | stopped
    pid: int = 0
    start_ms: float | None = None  # from the start to the first healthy answer
    restarts: int = 0
    problem: str = ""
    adopted: bool = False


class Keeper:
    """The thread of one replica. ``on_change`` is called after every change of condition.

    ``found`` is its container where that runs already: it is adopted, never started anew.
    """

    def __init__(
        self,
        replica: Replica,
        on_change: Callable[[Keeper], None],
        found: ContainerState | None = None,
    ) -> None:
        self.replica = replica
        self.condition = Condition()
        if found is not None:
            self.condition = Condition("adopting", found.pid, self._recall(found), adopted=True)
        self.draining = False
        self._found = found
        self._on_change = on_change
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waking = threading.Lock()  # of that descriptor, which is gone with the thread
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=replica.id, daemon=True)

    def start(self) -> None:
        """Begin: watch the container that was found, or start one."""
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread to end; `release` waits for it."""
        self._stopping.set()
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def release(self) -> None:
        """End the thread and leave the container running, for the next supervisor."""
        self.wake()
        self._thread.join(timeout=5)

    def stop(self, grace: float = 10.0) -> None:
        """End the thread, then the container: SIGTERM, ``grace`` seconds, SIGKILL; remove it."""
        self.release()
        remove(self.replica.id, grace)
        self._record().unlink(missing_ok=True)
        self._set(phase="stopped", pid=0)

    def _set(self, **changes: object) -> None:
        self.condition = replace(self.condition, **changes)  # type: ignore[arg-type]
        self._on_change(self)

    def _run(self) -> None:
        try:
            self._keep()
        finally:
            with self._waking:
                os.close(self._wake)
                self._wake = -1

    def _keep(self) -> None:
        first, longest = self.replica.first_pause, self.replica.longest_pause
        pause = first
        adopted = self._found
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                state = adopted or self._start()
                self._watch(state, adopted=adopted is not None, began=began)
            except BazaarError as error:
                self._set(phase="waiting", pid=0, problem=str(error))
            except Exception as error:
                self._set(phase="waiting", pid=0, problem=repr(error))
            adopted = None
            if self._stopping.is_set() or self.replica.container is None:
                return
            if time.monotonic() - began > RAN_WELL:
                pause = first
            if self._stopping.wait(pause):
                return
            pause = min(pause * 2, longest)
            self._set(phase="starting", restarts=self.condition.restarts + 1)

    def _start(self) -> ContainerState:
        from bazaar.run import containers
        from bazaar.site import network

        replica = self.replica
        if replica.container is None:
            raise EngineError(f"{replica.name} ended on its way out")
        # gVisor takes the namespace's addresses for itself, so each start needs a fresh one.
        remove(replica.id, grace=0)
        attachment = network.connect(replica.bazaar, replica.site, replica.id, replica.address)
        return containers.start(replace(replica.container, namespace=attachment.namespace))

    def _watch(self, state: ContainerState, *, adopted: bool, began: float) -> None:
        """From a started container to its end, or until this keeper is to stop."""
        from bazaar.run import containers

        replica = self.replica
        ended = containers.exit_fd(replica.id)
        if ended is None:
            self._ended()
            return
        try:
            phase = "adopting" if adopted else "starting"
            self._set(phase=phase, pid=state.pid, adopted=adopted, problem="")

            def alive() -> bool:
                return not self._stopping.is_set() and not select.select([ended], [], [], 0)[0]

            problem = None
            if replica.port is not None:
                problem = health.wait(
                    replica.health, replica.address, replica.port, alive=alive, since=began
                )
            if problem is not None and alive():
                self._set(phase="unhealthy", problem=problem)
                problem = self._wait_longer(alive)
            took = (time.monotonic() - began) * 1000
            if self._stopping.is_set():
                return
            if problem is None:
                kept = self._recall(state) if adopted else self._remember(state, took)
                self._set(phase="healthy", start_ms=kept, problem="")
            select.select([ended, self._wake], [], [])
        finally:
            os.close(ended)
        if not self._stopping.is_set():
            self._ended()

    def _wait_longer(self, alive: Callable[[], bool]) -> str | None:
        """Past its start period a replica may answer still: ask at the pace of its checks."""
        replica = self.replica
        problem: str | None = ""
        while problem is not None and alive():
            self._stopping.wait(replica.health.interval)
            problem = health.check(replica.health, replica.address, replica.port or 0)
        return problem

    def _remember(self, state: ContainerState, took: float) -> float:
        """Keep how long the start took, for a supervisor that finds the replica running."""
        with contextlib.suppress(BazaarError):  # a full disk is no reason to start it again
            write_json(self._record(), {"started_at": state.started_at, "start_ms": took})
        return took

    def _recall(self, state: ContainerState) -> float | None:
        with contextlib.suppress(BazaarError, TypeError, KeyError):
            record = read_json(self._record())
            if record["started_at"] == state.started_at:
                return float(record["start_ms"])
        return None

    def _record(self) -> Path:
        return paths.bazaar(self.replica.bazaar) / "replicas" / f"{self.replica.id}.json"

    def _ended(self) -> None:
        from bazaar.run import containers

        code = containers.wait(self.replica.id, timeout=2)
        words = _last_words(self.replica.id)
        self._set(phase="waiting", pid=0, problem=f"it ended with exit code {code}{words}")


def remove(container: str, grace: float) -> None:
    """Take a container and its network away; nothing happens where there is none."""
    from bazaar.run import containers
    from bazaar.site import network

    if containers.state(container) is not None:
        containers.remove(container, force=True, timeout=grace)
    network.disconnect(container)


def _last_words(container: str) -> str:
    """The end of a container's log, so that a failed start explains itself."""
    from bazaar.run import containers

    lines: list[str] = []
    with contextlib.suppress(BazaarError):
        entries = containers.logs(container, tail=3)
        lines = [entry.text.decode(errors="replace").rstrip() for entry in entries]
    return "".join(f"\n  {line}" for line in lines if line)
