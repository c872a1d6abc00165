"""Brings what runs to what is wanted, so that no request fails where that is possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bazaar.errors import BazaarError, NetworkError
from bazaar.model.container import ContainerState
from bazaar.spec.resolved import ResolvedBazaar, ResolvedService
from bazaar.up import layout as layouts
from bazaar.up import replicas
from bazaar.up.keeper import Keeper, Replica, remove
from bazaar.up.replicas import Slot, Version
from bazaar.up.supervisor import Supervisor

DRAIN = 10.0  # seconds a leaving replica gets to finish its requests
PATIENCE = 5.0  # seconds the balance gets to see what a health check saw
SETTLE = 1.0  # seconds a changed replica that has no health check must run


class Rollout:
    """One change of a bazaar, from what runs to ``supervisor.wanted``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    @property
    def wanted(self) -> ResolvedBazaar:
        """What is wanted on this machine; a change that failed is taken out of it."""
        return self.supervisor.wanted.here

    def run(self) -> list[str]:
        """Do it; returns what did not become healthy, in sentences."""
        self._lay_out()
        ended = self.adopt()
        self._ensure_network()
        adopting = self.supervisor.adopting
        if not adopting:  # probes are to see services from their start on
            self._observe()
        with ThreadPoolExecutor(max_workers=max(4, len(self.wanted.services) + 1)) as pool:
            for removal in [pool.submit(remove, container, grace=0) for container in ended]:
                removal.result()
            leaving = pool.submit(self._remove_unwanted)
            rollouts = [pool.submit(self._roll_out, service) for service in self.wanted.services]
            if adopting:  # they see all the while; what died is not to wait for it
                self._observe()
            problems = [problem for rollout in rollouts for problem in rollout.result()]
            leaving.result()
        self._tidy()
        self._await_balance()
        return problems

    def _observe(self) -> None:
        self.supervisor.observers.apply(self.wanted, self.supervisor.emit)

    # The network

    def _lay_out(self) -> None:
        from bazaar.site import network

        # Also of those that lose their port: that may have to be taken back.
        fronts = [
            service.name
            for service in self.wanted.services
            if service.port is not None
            or ((before := self._before(service)) and before.service.port is not None)
        ]
        known = self.supervisor.numbers
        if known is None or (self.wanted.subnet and self.wanted.subnet != known.subnet):
            known = layouts.Layout(self._take_subnet())
        else:
            network.ensure_front(
                self.wanted.name, known.subnet, reach=self.supervisor.clusters.hosts()
            )
        # Sites that are to go keep their numbers until their replicas have left.
        sites = dict.fromkeys(known.sites) | {site.name: site.subnet for site in self.wanted.sites}
        self.supervisor.store_layout(layouts.extend(known, sites, fronts))

    def _take_subnet(self) -> str:
        """Choose a subnet and stand in it at once: another bazaar may be choosing, too."""
        from bazaar.site import network

        name = self.wanted.name
        for attempt in range(8):
            subnet = network.choose_subnet(self.wanted.subnet, bazaar=name)
            try:
                network.ensure_front(name, subnet, reach=self.supervisor.clusters.hosts())
            except NetworkError:
                if self.wanted.subnet or attempt == 7:
                    raise
                time.sleep(0.05 * attempt)
            else:
                return subnet
        raise AssertionError("the last attempt returns or raises")

    def _ensure_network(self) -> None:
        from bazaar.site import names, network

        name, layout = self.wanted.name, self.supervisor.layout
        joined = self.supervisor.joined_sites()

        def ensure(site: str) -> None:
            began = time.monotonic()
            network.ensure_site(name, site, layout.sites[site])
            took = time.monotonic() - began
            self.supervisor.emit({"kind": "site", "name": site, "seconds": took})

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(ensure, [site.name for site in self.wanted.sites]))
        names.apply(name, {service: layout.front(service) for service in layout.fronts})
        for keeper in self.supervisor.all_keepers():
            # The balance may not have seen yet that it was cut off: it is to ask anew.
            if keeper.replica.site not in joined:
                self.supervisor.mark_down(keeper.replica)

    def _tidy(self) -> None:
        """Take away what was needed while the change went on: sites, addresses, servers."""
        from bazaar.site import names, network

        layout = self.supervisor.layout
        staying = {site.name: site.subnet for site in self.wanted.sites}
        for site in [site for site in layout.sites if site not in staying]:
            network.remove_site(self.wanted.name, site)
        fronts = [service.name for service in self.wanted.services if service.port is not None]
        left = layouts.extend(layout, staying, fronts)
        self.supervisor.store_layout(left)
        if len(fronts) < len(layout.fronts):
            names.apply(self.wanted.name, {service: left.front(service) for service in fronts})
        self.supervisor.balance()

    # What runs already

    def adopt(self) -> list[str]:
        """Keepers for the containers that run already, whoever started them.

        Nothing but reading: it takes as long on a busy machine. Returns the ids of containers
        that ended, and of those nobody reads the output of any more, which soon end by it.
        """
        from bazaar.run import containers

        ended: list[str] = []
        for state in containers.listing():
            if dict(state.labels).get("bazaar") != self.wanted.name:
                continue
            if state.id in self.supervisor.keepers:
                continue
            if state.status == "running" and containers.tended(state.id):
                self.supervisor.keep(self._adopted(state), state)
            else:
                ended.append(state.id)
        return ended

    def _adopted(self, state: ContainerState) -> Replica:
        """A running container as the replica it is, or as one that is to leave."""
        replica = replicas.leaving(self.wanted.name, state)
        service = self.wanted.service(replica.service)
        slot = Slot(*replica.slot)
        if service is None or slot not in replicas.slots(service):
            return replica
        for version in filter(None, (self._version(service), self._before(service))):
            if replica.fingerprint == version.fingerprint:
                try:
                    return self._make(
                        version, slot, replica.generation, replica.address, pull="never"
                    )
                except (BazaarError, OSError):
                    # Without its image or files it could not be started again: replaced later.
                    replica = replace(replica, fingerprint="")
        return replace(replica, port=service.port, health=service.health)

    # From one version of a service to another

    def _version(self, service: ResolvedService) -> Version:
        return Version(service, self.supervisor.secrets.get(service.name, {}))

    def _before(self, service: ResolvedService) -> Version | None:
        """What ran before a change of the container; None where there is no such change."""
        applied = self.supervisor.applied
        before = applied.here.service(service.name) if applied else None
        if before is None:
            return None
        secrets = self.supervisor.applied_secrets.get(service.name, {})
        version = Version(replicas.reverted(service, before), secrets)
        return None if version.fingerprint == self._version(service).fingerprint else version

    def _roll_out(self, service: ResolvedService) -> list[str]:
        """Bring one service to what is wanted, or back to what it was when that fails."""
        before = self._before(service)
        if before is not None and self._is_broken(before):
            before = None
        if before is None:
            return self._bring(self._version(service))
        try:
            problems = self._bring(self._version(service), changing=True)
        except (BazaarError, OSError) as error:  # what runs cannot be changed into it
            problems = [f"{service.name}: {error}"]
        if problems:
            problems.append(self._take_back(before))
        return problems

    def _is_broken(self, version: Version) -> bool:
        """Whether all there is of a version fails, so that there is nothing to go back to."""
        phases = {
            keeper.condition.phase
            for keeper in self.supervisor.all_keepers()
            if keeper.replica.service == version.service.name
            and keeper.replica.fingerprint == version.fingerprint
        }
        return bool(phases) and phases <= {"unhealthy", "waiting"}

    def _take_back(self, before: Version) -> str:
        """Run what ran before a change that failed; what became of it, in a sentence."""
        service = before.service
        failed: list[str] = []
        # Each is tried whatever becomes of the others: that it runs again comes first.
        for step in (
            lambda: self.supervisor.put_back(service),
            lambda: failed.extend(self._bring(before)),
            self._observe,  # the shield knows the ports that are served
        ):
            try:
                step()
            except (BazaarError, OSError) as error:
                failed.append(str(error))
        outcome = f"does not run again yet: {failed[0]}" if failed else "runs again"
        return (
            f"{service.name}: the change is taken back, and what ran before {outcome}\n"
            "        mend the description, and run `bazaar up` with it again"
        )

    def _bring(self, version: Version, *, changing: bool = False) -> list[str]:
        """Bring a service to a version: new slots at once, changed ones one by one.

        The first that fails ends it: a bad change must not take all of them. With ``changing``
        those without a health check are watched for a moment.
        """
        new: list[Keeper] = []
        changed: list[tuple[Slot, list[Keeper]]] = []
        for slot in replicas.slots(version.service):
            there = [keeper for keeper in self.supervisor.in_slot(slot) if not keeper.draining]
            old = [one for one in there if one.replica.fingerprint != version.fingerprint]
            if old:
                changed.append((slot, old))
            elif not there:
                new.append(self._begin(version, slot))
            elif changing:  # begun by an interrupted change, which may fail yet
                new += there
        self.supervisor.balance()
        problems = self._await(new, version, settle=changing)
        for slot, old in changed:
            if problems:
                break
            problems = self._replace(version, slot, old, changing=changing)
        return problems

    def _replace(
        self, version: Version, slot: Slot, old: list[Keeper], *, changing: bool
    ) -> list[str]:
        """The new one first, then the old one leaves; where they share data, the reverse."""
        if version.shares_data:
            replica = self._prepare(version, slot, leaving=old)  # what fails here stops nothing
            self._leave(old)
            keeper = self.supervisor.keep(replica)
            self.supervisor.balance()
            return self._await([keeper], version, settle=changing)
        # An interrupted change may have begun it.
        begun = [one for one in self.supervisor.in_slot(slot) if one not in old]
        keeper = next((one for one in begun if not one.draining), None)
        keeper = keeper or self._begin(version, slot)
        problems = self._await([keeper], version, settle=changing)
        if problems:
            self.supervisor.forget(keeper)
            keeper.stop(grace=0)
            return problems
        self.supervisor.balance()
        if keeper.replica.port is not None:
            self.supervisor.wait_until_seen({keeper.replica.id}, PATIENCE)
        self._leave(old)
        return []

    def _begin(self, version: Version, slot: Slot) -> Keeper:
        return self.supervisor.keep(self._prepare(version, slot))

    def _prepare(self, version: Version, slot: Slot, leaving: Sequence[Keeper] = ()) -> Replica:
        """A slot's next replica with all it needs, beside those that stay there."""
        there = [keeper for keeper in self.supervisor.in_slot(slot) if keeper not in leaving]
        generation = max((keeper.replica.generation for keeper in there), default=0) + 1
        address = self.supervisor.promise_address(slot.site)
        try:
            return self._make(version, slot, generation, address)
        except BaseException:
            self.supervisor.break_promise(address)
            raise

    def _make(
        self, version: Version, slot: Slot, generation: int, address: str, pull: str = "missing"
    ) -> Replica:
        from bazaar.run import images
        from bazaar.site import names

        return replicas.build(
            self.wanted.name,
            version.service,
            slot,
            generation=generation,
            address=address,
            image=images.ensure(version.service.image, lambda text: None, pull=pull),
            secrets=version.secrets,
            resolver=names.resolv_conf(self.wanted.name, self.supervisor.layout.subnet),
        )

    def _leave(self, leaving: list[Keeper]) -> None:
        """Drain replicas of one slot, take them out of the balance, and end them."""
        ids = {keeper.replica.id for keeper in leaving}
        for keeper in leaving:
            keeper.draining = True
        try:
            self.supervisor.balance()
        except BaseException:
            for keeper in leaving:
                keeper.draining = False
            raise

        def busy() -> bool:
            backends = (one for group in self.supervisor.backends().values() for one in group)
            return any(backend.id in ids and backend.current for backend in backends)

        _poll(lambda: not busy(), DRAIN)
        for keeper in leaving:
            self.supervisor.forget(keeper)
        try:
            self.supervisor.balance()
        finally:
            for keeper in leaving:
                keeper.stop()

    def _remove_unwanted(self) -> None:
        slots = {slot for service in self.wanted.services for slot in replicas.slots(service)}
        leaving = [
            [keeper]
            for keeper in self.supervisor.all_keepers()
            if Slot(*keeper.replica.slot) not in slots
        ]
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._leave, leaving))

    # Waiting

    def _await(self, keepers: list[Keeper], version: Version, *, settle: bool = False) -> list[str]:
        """Until each is healthy or has failed for good; the failures, in sentences."""
        limit = version.service.health.start_period + 5
        for keeper in keepers:
            self.supervisor.wait_for(lambda k=keeper: _settled(k), limit)
        settle = settle and not version.checked
        if settle:
            self.supervisor.wait_for(lambda: any(map(_ended, keepers)), SETTLE)
        return [
            f"{keeper.replica.name}: {keeper.condition.problem or 'not healthy in time'}"
            for keeper in keepers
            if keeper.condition.phase != "healthy" or (settle and _ended(keeper))
        ]

    def _await_balance(self) -> None:
        """Until the balance sees every replica that is healthy, within reason."""
        healthy = [k for k in self.supervisor.all_keepers() if k.condition.phase == "healthy"]
        wanted = {keeper.replica.id for keeper in healthy if keeper.replica.port is not None}
        for service in self.supervisor.wanted.services:
            machines = self.supervisor.clusters.backends(service)
            wanted |= {machine.id for machine in machines if not machine.draining}
        self.supervisor.wait_until_seen(wanted, PATIENCE)


def _poll(condition: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def _settled(keeper: Keeper) -> bool:
    """Healthy, or failed so often that waiting longer helps nobody."""
    condition = keeper.condition
    return condition.phase in ("healthy", "unhealthy") or (
        condition.phase == "waiting" and condition.restarts >= 3
    )


def _ended(keeper: Keeper) -> bool:
    """It ended once at least since it was begun."""
    return keeper.condition.phase == "waiting" or keeper.condition.restarts > 0
