"""The sites that are clusters, as the supervisor sees them: who is ready there, behind which port.

What runs there is the cluster's own to keep. `up` says how to ask its API, as somebody who may
see the bazaar's pods and nothing else; that is stored in ``clusters.json``, for its owner alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bazaar.cluster.client import Access, Client
from bazaar.cluster.deployed import Pod, Seen, pods
from bazaar.errors import BazaarError, StateError
from bazaar.host import paths
from bazaar.host.files import read_json, write_json
from bazaar.model.record import names
from bazaar.model.site import Backend, BackendStatus
from bazaar.spec.resolved import ResolvedService

PAUSE = 0.5  # seconds between two looks
STALE = 10.0  # seconds after which what was seen last is believed no more
FIRST = 3.0  # seconds that are waited for the first looks


def to_json(seen: Seen) -> dict[str, Any]:
    """As `up` hands it to the supervisor, and as that stores it."""
    return {
        "access": {name: getattr(seen.access, name) for name in names(seen.access)},
        "hosts": dict(seen.hosts),
        "ports": dict(seen.ports),
        "edges": list(seen.edges),
    }


def from_json(value: Any) -> Seen:
    """Read back what `to_json` wrote. Raises StateError where it is something else."""
    try:
        access = Access(**value["access"])
        return Seen(access, dict(value["hosts"]), dict(value["ports"]), tuple(value["edges"]))
    except (TypeError, KeyError, ValueError) as error:
        raise StateError(f"what is stored of a cluster is of no known form: {error!r}") from error


def stored(bazaar: str) -> dict[str, Seen]:
    """What is known of the clusters of a bazaar, by site."""
    values: dict[str, Any] = read_json(_file(bazaar)) or {}
    return {site: from_json(value) for site, value in values.items()}


def _file(bazaar: str) -> Path:
    return paths.bazaar(bazaar) / "clusters.json"


class ClusterSites:
    """All of a bazaar; ``on_change`` is called when other machines have pods than before.

    It says whether it took that in; else it is called again.
    """

    def __init__(self, bazaar: str, on_change: Callable[[], bool]) -> None:
        self._bazaar = bazaar
        self._on_change = on_change
        self._watches: dict[str, _Watch] = {}

    def load(self) -> None:
        """Watch what was stored; what is cut short is known again with the next `up`."""
        with contextlib.suppress(StateError):
            self._watch(stored(self._bazaar))

    def store(self, values: Mapping[str, Any]) -> None:
        """Take what `up` says of the clusters as what there is, and look at them once."""
        known = {site: from_json(value) for site, value in values.items()}
        write_json(_file(self._bazaar), dict(values))
        self._watch(known)

    def _watch(self, known: Mapping[str, Seen]) -> None:
        for watch in self._watches.values():
            watch.end()
        self._watches = {
            site: _Watch(self._bazaar, seen, self._on_change) for site, seen in known.items()
        }
        deadline = time.monotonic() + FIRST
        for watch in self._watches.values():
            watch.looked.wait(deadline - time.monotonic())

    def hosts(self) -> list[str]:
        """The addresses of all clusters' machines."""
        every = (host for watch in self._watches.values() for host in watch.seen.hosts.values())
        return sorted(set(every))

    def published(self, service: ResolvedService) -> list[str]:
        """Where the world is let in to a service: at the edges of all clusters."""
        ports = [place.port for place in service.publish]
        there = any(service.name in watch.seen.ports for watch in self._watches.values())
        edges = [edge for watch in self._watches.values() for edge in watch.seen.edges if there]
        return [f"{edge}:{port}" for edge in edges for port in ports]

    def joined(self) -> set[str]:
        """The sites whose clusters answer."""
        return {site for site, watch in self._watches.items() if not watch.problem}

    def backends(self, service: ResolvedService) -> list[Backend]:
        """The machines that have pods of a service, each as heavy as it has ready ones."""
        found: list[Backend] = []
        for site in service.sites:
            watch = self._watches.get(site)
            port = watch.seen.ports.get(service.name) if watch else None
            if watch is None or port is None:
                continue
            if not watch.seen_once:  # all of them: the balance's own checks tell who has pods
                found += [
                    Backend(_id(service.name, site, node), site, host, port)
                    for node, host in watch.seen.hosts.items()
                ]
                continue
            counts: dict[str, int] = {}
            for pod in watch.pods:
                if pod.service == service.name and pod.node in watch.seen.hosts:
                    more = pod.ready and not pod.leaving
                    counts[pod.node] = counts.get(pod.node, 0) + more
            for node, count in sorted(counts.items()):
                name, host = _id(service.name, site, node), watch.seen.hosts[node]
                found.append(Backend(name, site, host, port, count == 0, max(1, count)))
        return found

    def rows(self, service: ResolvedService, backends: list[BackendStatus]) -> list[dict[str, Any]]:
        """A service's pods as rows of the status."""
        seen = {backend.id: backend for backend in backends}
        return [
            _row(pod, site, watch, seen.get(_id(service.name, site, pod.node)))
            for site in service.sites
            if (watch := self._watches.get(site))
            for pod in watch.pods
            if pod.service == service.name
        ]

    def end(self) -> None:
        """Look no more."""
        self._watch({})


class _Watch:
    """One cluster: a thread that looks at the bazaar's pods again and again."""

    def __init__(self, bazaar: str, seen: Seen, on_change: Callable[[], bool]) -> None:
        self.seen = seen
        self.pods: tuple[Pod, ...] = ()
        self.problem = ""
        self.seen_once = False
        self.looked = threading.Event()  # for the first time, whatever came of it
        self._bazaar = bazaar
        self._on_change = on_change
        self._ended = threading.Event()
        self._last = time.monotonic()
        self._client = Client(seen.access, timeout=5)
        threading.Thread(target=self._run, name=seen.access.cluster, daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        known: object = None
        while not self._ended.is_set():
            self._look()
            self.looked.set()
            if (shape := self._shape()) != known and not self._ended.is_set():
                with contextlib.suppress(BazaarError):
                    if self._on_change():
                        known = shape
            self._ended.wait(PAUSE)
        self._client.close()

    def _look(self) -> None:
        try:
            self.pods = tuple(pods(self._client, self._bazaar))
            self._last, self.problem, self.seen_once = time.monotonic(), "", True
        except BazaarError as error:
            # Its pods go on without the API: what was seen is true until it is too old.
            if not self.pods or time.monotonic() - self._last > STALE:
                self.problem = error.message

    def _shape(self) -> object:
        """What the balance depends on."""
        pods = [(pod.service, pod.node, pod.ready and not pod.leaving) for pod in self.pods]
        return self.seen_once, pods


def _id(service: str, site: str, node: str) -> str:
    return f"{service}/{site}/{node}"


def _row(pod: Pod, site: str, watch: _Watch, backend: BackendStatus | None) -> dict[str, Any]:
    healthy = pod.ready and not watch.problem and (backend is None or backend.healthy)
    phase = "draining" if pod.leaving else "healthy" if pod.ready else "starting"
    problem = watch.problem or pod.problem or ("" if healthy or not backend else backend.detail)
    return {
        "id": _id(pod.service, site, pod.name),
        "container": pod.name,
        "site": site,
        "node": pod.node,
        "engine": "gvisor" if pod.own_kernel else "shared",
        "address": pod.address,
        "healthy": healthy and not pod.leaving,
        "phase": "waiting" if phase == "starting" and pod.restarts else phase,
        "start_ms": None if pod.start_ms is None else round(pod.start_ms, 1),
        "pid": None,
        "restarts": pod.restarts,
        "problem": problem,
    }
