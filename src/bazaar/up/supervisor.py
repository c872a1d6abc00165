"""One supervisor for each bazaar: the only one who changes what runs.

It holds nothing that cannot be read back. What is wanted lies in ``wanted.json``, its secrets
in ``secrets.json`` (readable by the owner alone), the numbers in ``layout.json``; what was
brought about before, to go back to, in ``applied.json`` and ``applied-secrets.json``. What runs
is found by the containers' labels. Killed and started again it adopts all that runs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bazaar.errors import BazaarError, LockedError, StateError
from bazaar.host import paths
from bazaar.host.files import read_json, write_json
from bazaar.model.container import ContainerState
from bazaar.model.site import Backend, BackendStatus, Front
from bazaar.spec.resolved import ResolvedBazaar, ResolvedService, from_json, to_json
from bazaar.up import layout as layouts
from bazaar.up.cluster_sites import ClusterSites
from bazaar.up.keeper import Keeper, Replica
from bazaar.up.observers import Observers
from bazaar.up.replicas import Slot

RETRY = 30.0  # seconds between two tries to attach what could not be attached
RESUME = 300.0  # seconds an `up` waits for what a supervisor does after its start
Emit = Callable[[dict[str, Any]], None]
Secrets = dict[str, dict[str, str]]  # service → variable → value


class Supervisor:
    """What is wanted, what runs, and the balance over it; `Rollout` brings them together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = paths.bazaar(name)
        self.started = time.time()
        self.since = self.started  # of the bazaar: it survives supervisors
        self.known: ResolvedBazaar | None = None
        self.numbers: layouts.Layout | None = None
        self.secrets: Secrets = {}
        self.applied: ResolvedBazaar | None = None  # what was brought about the last time
        self.applied_secrets: Secrets = {}
        self.adopting = False  # what runs is being taken over from an earlier supervisor
        self.keepers: dict[str, Keeper] = {}  # by container id
        self.observers = Observers(name)
        self.clusters = ClusterSites(name, self._clusters_changed)
        self.emit: Emit = lambda event: None
        self._changing = threading.Lock()  # one change at a time
        self._guard = threading.RLock()  # of the keepers and the promised addresses
        self._promised: set[str] = set()
        self._balancing = threading.Lock()
        self._changed = threading.Condition()
        self._retried = time.monotonic()
        self._storing = threading.Lock()

    # What is stored

    def load(self) -> bool:
        """Read back what was wanted; False when nothing was."""
        stored = read_json(self.folder / "wanted.json")
        if stored is None:
            return False
        try:
            self.known = from_json(stored)
            numbers = read_json(self.folder / "layout.json")
            self.numbers = layouts.from_json(numbers) if numbers else None
            self.secrets = read_json(self.folder / "secrets.json") or {}
            self.since = float(read_json(self.folder / "since.json") or self.started)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"{self.folder}: the stored state is of no known form: {error!r}",
                hint=f"`bazaar up FILE` writes it anew; `bazaar down {self.name}` clears it away",
            ) from error
        with contextlib.suppress(StateError):  # cut short: there is nothing to go back to
            applied = read_json(self.folder / "applied.json")
            self.applied = from_json(applied) if applied else None
            self.applied_secrets = read_json(self.folder / "applied-secrets.json") or {}
        self.clusters.load()
        return True

    def store(self, wanted: ResolvedBazaar, secrets: Secrets) -> None:
        """Take a new description as what is wanted from now on."""
        write_json(self.folder / "secrets.json", secrets)
        write_json(self.folder / "since.json", self.since)
        write_json(self.folder / "wanted.json", to_json(wanted))
        self.known, self.secrets = wanted, secrets

    def put_back(self, service: ResolvedService) -> None:
        """Want a service again as it was before a change that failed.

        Stored at once, so that no later supervisor tries that change again by itself; known
        even where it cannot be stored.
        """
        with self._storing:
            services = (
                replace(service, sites=s.sites) if s.name == service.name else s
                for s in self.wanted.services
            )
            self.known = replace(self.wanted, services=tuple(services))
            earlier = self.applied_secrets.get(service.name, {})
            self.secrets = {**self.secrets, service.name: earlier}
            self.store(self.known, self.secrets)

    def store_layout(self, layout: layouts.Layout) -> None:
        """Remember the addresses."""
        self.numbers = layout
        write_json(self.folder / "layout.json", layout.to_json())

    @property
    def wanted(self) -> ResolvedBazaar:
        """What is wanted. Raises StateError before the first `up`."""
        if self.known is None:
            raise StateError(f"bazaar {self.name} has no description yet")
        return self.known

    @property
    def layout(self) -> layouts.Layout:
        """The addresses. Raises StateError before the first `up`."""
        if self.numbers is None:
            raise StateError(f"bazaar {self.name} has no addresses yet")
        return self.numbers

    # Changing

    def apply(
        self, wanted: ResolvedBazaar, secrets: Secrets, clusters: dict[str, Any], emit: Emit
    ) -> list[str]:
        """Make ``wanted`` real; returns what did not become healthy, in sentences.

        ``clusters`` is what is known of the sites that are some.
        """
        with self._change():
            self.emit = emit
            try:
                self.store(wanted, secrets)
                self.clusters.store(clusters)
                return self._bring_about()
            finally:
                self.emit = lambda event: None

    def adopt(self) -> None:
        """After a start: keep the replicas that run, before anything else is done."""
        from bazaar.up.rollout import Rollout

        self.adopting = True
        if self.numbers is not None:
            Rollout(self).adopt()

    def resume(self) -> list[str]:
        """After `adopt`: take over the rest, and bring about what was wanted and is not there."""
        try:
            with self._change():
                return self._bring_about()
        finally:
            self.adopting = False

    def _bring_about(self) -> list[str]:
        from bazaar.up.rollout import Rollout

        problems = Rollout(self).run()
        # A plan compares with this: what was begun but not finished, or put back, is still to do.
        write_json(self.folder / "applied-secrets.json", self.secrets)
        write_json(self.folder / "applied.json", to_json(self.wanted))
        self.applied, self.applied_secrets = self.wanted, self.secrets
        return problems

    @contextlib.contextmanager
    def _change(self) -> Generator[None]:
        # Another user's change is refused at once; the supervisor's own is waited for.
        patience = RESUME if self.adopting else 0
        if not self._changing.acquire(timeout=patience):
            raise LockedError(
                f"bazaar {self.name} is being changed already",
                hint="wait until it is done, and run the same again",
            )
        try:
            yield
        finally:
            self._changing.release()

    @property
    def state(self) -> str:
        """What it is about: adopting, changing or ready."""
        if self.adopting:
            return "adopting"
        return "changing" if self._changing.locked() else "ready"

    # The replicas

    def keep(self, replica: Replica, found: ContainerState | None = None) -> Keeper:
        """Begin to keep a replica running; ``found`` is its container where it runs already."""
        keeper = Keeper(replica, self._replica_changed, found)
        with self._guard:
            self.keepers[replica.id] = keeper
            self._promised.discard(replica.address)
        keeper.start()
        return keeper

    def forget(self, keeper: Keeper) -> None:
        """Take a replica out of all that is kept and balanced."""
        with self._guard:
            self.keepers.pop(keeper.replica.id, None)

    def all_keepers(self) -> list[Keeper]:
        """Every replica that is kept now, in a steady order."""
        with self._guard:
            return sorted(self.keepers.values(), key=lambda keeper: keeper.replica.id)

    def in_slot(self, slot: Slot) -> list[Keeper]:
        """Who fills a slot; two, while one takes the other's place."""
        return [one for one in self.all_keepers() if Slot(*one.replica.slot) == slot]

    def promise_address(self, site: str) -> str:
        """A free address of a site, for a replica about to be kept."""
        with self._guard:
            taken = {keeper.replica.address for keeper in self.keepers.values()} | self._promised
            address = self.layout.free_address(site, taken)
            self._promised.add(address)
            return address

    def break_promise(self, address: str) -> None:
        """Give an address back: no replica came of it."""
        with self._guard:
            self._promised.discard(address)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``condition`` holds; it is asked again whenever a replica changed."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def _replica_changed(self, keeper: Keeper) -> None:
        condition, replica = keeper.condition, keeper.replica
        if condition.phase not in ("starting", "adopting"):
            self.emit(
                {
                    "kind": "replica",
                    "name": replica.name,
                    "engine": replica.engine,
                    "phase": condition.phase,
                    "start_ms": condition.start_ms,
                    "problem": condition.problem,
                    "adopted": condition.adopted,
                }
            )
        if condition.phase == "waiting":
            self.mark_down(replica)
        with self._changed:
            self._changed.notify_all()

    # The balance

    def mark_down(self, replica: Replica) -> None:
        """Tell the balance what is known here: it need not find out by its checks."""
        if replica.port is not None:
            from bazaar.site import balance

            with contextlib.suppress(BazaarError):
                balance.mark_down(self.name, replica.service, replica.id)

    def balance(self) -> None:
        """Bring the balance to what is kept now."""
        from bazaar.site import balance

        with self._balancing:
            balance.apply(self.name, self.fronts())

    def _clusters_changed(self) -> bool:
        """Balance over what clusters have now; whether it could be: a change does it by itself."""
        if self.state != "ready" or self.known is None or self.numbers is None:
            return False
        self.balance()
        return True

    def backends(self) -> dict[str, list[BackendStatus]]:
        """What the balance measured, by service; nothing while it does not run."""
        from bazaar.site import balance

        try:
            return balance.status(self.name)
        except BazaarError:
            return {}

    def wait_until_seen(self, ids: set[str], timeout: float) -> None:
        """Wait until the balance, too, sees replicas as healthy, or as long as that is worth."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            backends = [one for group in self.backends().values() for one in group]
            if ids <= {backend.id for backend in backends if backend.healthy}:
                return
            time.sleep(0.02)

    def joined_sites(self) -> set[str]:
        """The sites that are there and reached by the front."""
        from bazaar.site import network

        sites = network.observed(self.name).sites
        return {name for name, site in sites.items() if site.joined} | self.clusters.joined()

    def fronts(self) -> list[Front]:
        """What the balance is to do now."""
        keepers = self.all_keepers()
        return [
            self._front(service, service.port, keepers)
            for service in self.wanted.services
            if service.port is not None
        ]

    def _front(self, service: ResolvedService, port: int, keepers: list[Keeper]) -> Front:
        return Front(
            service=service.name,
            address=self.layout.front(service.name),
            port=service.front_port or port,
            mode=service.mode,
            health=service.health,
            backends=tuple(
                Backend(
                    id=keeper.replica.id,
                    site=keeper.replica.site,
                    address=keeper.replica.address,
                    port=keeper.replica.port or port,
                    draining=keeper.draining,
                )
                for keeper in keepers
                if keeper.replica.service == service.name
            )
            + tuple(self.clusters.backends(service)),
            publish=service.publish,
            certificate=Path(service.certificate) if service.certificate else None,
            certificate_digest=service.certificate_digest,
            nearest=service.nearest,
        )

    # Life

    def tick(self) -> None:
        """A few times a second: watch floods, collect events."""
        self.observers.tick()

    def repair(self) -> None:
        """Every second: start the balance and the names again, should they have died."""
        from bazaar.site import balance, names

        if self.known is None or self.numbers is None or self.state != "ready":
            return
        balance.keep(self.name)
        names.keep(self.name)
        if time.monotonic() - self._retried > RETRY:
            self._retried = time.monotonic()
            self.observers.retry(self.known)

    def release(self) -> None:
        """End, and leave everything running."""
        self.clusters.end()
        for keeper in self.all_keepers():
            keeper.wake()
        for keeper in self.all_keepers():
            keeper.release()
        self.observers.release()
