"""Brings what runs to what is wanted, so that no request fails where that is possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bazaar.errors import NetworkError
from bazaar.model.container import ContainerState, Image
from bazaar.spec.resolved import ResolvedService
from bazaar.up import layout as layouts
from bazaar.up import replicas
from bazaar.up.keeper import Keeper, Replica, remove
from bazaar.up.replicas import Slot
from bazaar.up.supervisor import Supervisor

DRAIN = 10.0  # seconds a leaving replica gets to finish its requests
PATIENCE = 5.0  # seconds the balance gets to see what a health check saw


class Rollout:
    """One change of a bazaar, from what runs to ``supervisor.wanted``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.wanted = supervisor.wanted

    def run(self) -> list[str]:
        """Do it; returns what did not become healthy, in sentences."""
        self._lay_out()
        images = self._images()
        self._adopt_running(images)
        self._ensure_network()
        self.supervisor.observers.apply(self.wanted, self.supervisor.emit)
        with ThreadPoolExecutor(max_workers=max(4, len(self.wanted.services) + 1)) as pool:
            leaving = pool.submit(self._remove_unwanted)
            rollouts = [
                pool.submit(self._roll_out, service, images[service.image])
                for service in self.wanted.services
            ]
            problems = [problem for rollout in rollouts for problem in rollout.result()]
            leaving.result()
        self._remove_sites()
        self._await_balance()
        return problems

    def _images(self) -> dict[str, Image]:
        from bazaar.run import images

        references = dict.fromkeys(service.image for service in self.wanted.services)
        return {reference: images.ensure(reference, lambda text: None) for reference in references}

    # The network

    def _lay_out(self) -> None:
        from bazaar.site import network

        fronts = [service.name for service in self.wanted.services if service.port is not None]
        known = self.supervisor.numbers
        if known is None or (self.wanted.subnet and self.wanted.subnet != known.subnet):
            known = layouts.Layout(self._take_subnet())
        else:
            network.ensure_front(self.wanted.name, known.subnet)
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
                network.ensure_front(name, subnet)
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

        def ensure(site: str) -> None:
            began = time.monotonic()
            network.ensure_site(name, site, layout.sites[site])
            took = time.monotonic() - began
            self.supervisor.emit({"kind": "site", "name": site, "seconds": took})

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(ensure, [site.name for site in self.wanted.sites]))
        names.apply(name, {service: layout.front(service) for service in layout.fronts})

    def _remove_sites(self) -> None:
        from bazaar.site import network

        layout = self.supervisor.layout
        staying = {site.name: site.subnet for site in self.wanted.sites}
        for site in [site for site in layout.sites if site not in staying]:
            network.remove_site(self.wanted.name, site)
        self.supervisor.store_layout(layouts.extend(layout, staying, layout.fronts))
        self.supervisor.balance()

    # The replicas

    def _adopt_running(self, images: Mapping[str, Image]) -> None:
        """Keepers for the containers that run already, whoever started them."""
        from bazaar.run import containers

        for state in containers.listing():
            if dict(state.labels).get("bazaar") != self.wanted.name:
                continue
            if state.id in self.supervisor.keepers:
                continue
            if state.status == "running":
                self.supervisor.keep(self._adopted(state, images))
            else:
                remove(state.id, grace=0)

    def _adopted(self, state: ContainerState, images: Mapping[str, Image]) -> Replica:
        """A running container as the replica it is, or as one that is to leave."""
        replica = replicas.leaving(self.wanted.name, state)
        service = self.wanted.service(replica.service)
        slot = Slot(*replica.slot)
        if service is None or slot not in replicas.slots(service):
            return replica
        if replica.fingerprint != self._fingerprint(service):
            return replace(replica, port=service.port, health=service.health)
        image = images[service.image]
        return self._make(service, slot, image, replica.generation, replica.address)

    def _roll_out(self, service: ResolvedService, image: Image) -> list[str]:
        """Bring one service to what is wanted: new slots at once, changed ones one by one."""
        fingerprint = self._fingerprint(service)
        new: list[Keeper] = []
        changed: list[tuple[Slot, Keeper]] = []
        for slot in replicas.slots(service):
            keeper = self.supervisor.in_slot(slot)
            if keeper is None:
                new.append(self._begin(service, slot, image, 1))
            elif keeper.replica.fingerprint != fingerprint:
                changed.append((slot, keeper))
        self.supervisor.balance()
        problems = self._await(new, service)
        for slot, old in changed:
            problems += self._replace(service, slot, old, image)
            if problems:
                break  # A bad change must not take all of them: the rest go on as they are.
        return problems

    def _replace(
        self, service: ResolvedService, slot: Slot, old: Keeper, image: Image
    ) -> list[str]:
        """The new one first, then the old one leaves; where they share data, the reverse."""
        generation = old.replica.generation + 1
        if service.stateful or any(not volume.read_only for volume in service.volumes):
            self._leave(old)
            keeper = self._begin(service, slot, image, generation)
            self.supervisor.balance()
            return self._await([keeper], service)
        keeper = self._begin(service, slot, image, generation)
        problems = self._await([keeper], service)
        if problems:
            self.supervisor.forget(keeper)
            keeper.stop(grace=0)
            return [f"{problem}; the old replica goes on" for problem in problems]
        self.supervisor.balance()
        self._await_backend(keeper.replica)
        self._leave(old)
        return []

    def _begin(self, service: ResolvedService, slot: Slot, image: Image, generation: int) -> Keeper:
        address = self.supervisor.promise_address(slot.site)
        return self.supervisor.keep(self._make(service, slot, image, generation, address))

    def _make(
        self, service: ResolvedService, slot: Slot, image: Image, generation: int, address: str
    ) -> Replica:
        from bazaar.site import names

        return replicas.build(
            self.wanted.name,
            service,
            slot,
            generation=generation,
            address=address,
            image=image,
            secrets=self.supervisor.secrets.get(service.name, {}),
            resolver=names.resolv_conf(self.wanted.name, self.supervisor.layout.subnet),
        )

    def _fingerprint(self, service: ResolvedService) -> str:
        return replicas.fingerprint(service, self.supervisor.secrets.get(service.name, {}))

    def _leave(self, keeper: Keeper) -> None:
        """Drain a replica, end it, and take it out of the balance."""
        replica = keeper.replica
        keeper.draining = True
        self.supervisor.balance()

        def busy() -> bool:
            backends = self.supervisor.backends().get(replica.service, [])
            return any(backend.id == replica.id and backend.current for backend in backends)

        _poll(lambda: not busy(), DRAIN)
        self.supervisor.forget(keeper)
        self.supervisor.balance()
        keeper.stop()

    def _remove_unwanted(self) -> None:
        slots = {slot for service in self.wanted.services for slot in replicas.slots(service)}
        leaving = [
            keeper
            for keeper in self.supervisor.all_keepers()
            if Slot(*keeper.replica.slot) not in slots
        ]
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self._leave, leaving))

    # Waiting

    def _await(self, keepers: Iterable[Keeper], service: ResolvedService) -> list[str]:
        """Until each is healthy or has failed for good; the failures, in sentences."""
        problems: list[str] = []
        for keeper in keepers:
            limit = service.health.start_period + 5
            self.supervisor.wait_for(lambda k=keeper: _settled(k), limit)
            condition = keeper.condition
            if condition.phase != "healthy":
                why = condition.problem or "not healthy in time"
                problems.append(f"{keeper.replica.name}: {why}")
        return problems

    def _await_backend(self, replica: Replica) -> None:
        """Until the balance too sees a replica as healthy, within reason."""

        def seen() -> bool:
            backends = self.supervisor.backends().get(replica.service, [])
            return any(backend.id == replica.id and backend.healthy for backend in backends)

        if replica.port is not None:
            _poll(seen, PATIENCE)

    def _await_balance(self) -> None:
        """Until the balance sees every replica that is healthy, within reason."""
        healthy = [k for k in self.supervisor.all_keepers() if k.condition.phase == "healthy"]
        wanted = {keeper.replica.id for keeper in healthy if keeper.replica.port is not None}

        def seen() -> bool:
            backends = [b for group in self.supervisor.backends().values() for b in group]
            return wanted <= {backend.id for backend in backends if backend.healthy}

        _poll(seen, PATIENCE)


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
