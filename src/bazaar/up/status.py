"""What a bazaar is doing, as `bazaar status -o json` prints it (docs/reference/status.md)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from bazaar.spec.resolved import ResolvedBazaar, ResolvedService
from bazaar.up import replicas

if TYPE_CHECKING:
    from bazaar.model.site import BackendStatus
    from bazaar.up.keeper import Keeper
    from bazaar.up.supervisor import Supervisor

# What a probe on the host's kernel can see of a service, by the service's engine.
SEEN = {"shared": "everything", "gvisor": "host edge"}


def build(supervisor: Supervisor) -> dict[str, Any]:
    """The whole status. Sites and services are in the order of the description."""
    wanted = supervisor.known or ResolvedBazaar(supervisor.name)
    backends = supervisor.backends()
    keepers = supervisor.all_keepers()
    subnets = supervisor.numbers.sites if supervisor.numbers else {}
    joined = supervisor.joined_sites()
    services = [_service(supervisor, s, keepers, backends.get(s.name, [])) for s in wanted.services]
    return {
        "bazaar": supervisor.name,
        "supervisor": {
            "pid": os.getpid(),
            "started": supervisor.started,
            "state": supervisor.state,
        },
        "seconds": round(time.time() - supervisor.since, 3),
        "sites": [
            {
                "name": site.name,
                "provider": site.provider,
                "cluster": site.cluster,
                "subnet": subnets.get(site.name),
                "healthy": site.name in joined and _site_healthy(site.name, services),
            }
            for site in wanted.sites
        ],
        "services": services,
        "probes": supervisor.observers.probes(),
        "shield": supervisor.observers.shield_status(),
    }


def _service(
    supervisor: Supervisor,
    service: ResolvedService,
    keepers: list[Keeper],
    backends: list[BackendStatus],
) -> dict[str, Any]:
    seen = {backend.id: backend for backend in backends}
    its = sorted(
        (keeper for keeper in keepers if keeper.replica.service == service.name),
        key=lambda keeper: (keeper.replica.site, keeper.replica.number, keeper.replica.id),
    )
    rows = [_replica(keeper, seen.get(keeper.replica.id)) for keeper in its]
    rows += supervisor.clusters.rows(service, backends)
    address = None
    if service.port is not None and supervisor.numbers:
        address = supervisor.layout.front(service.name)
    engine = replicas.engine(service)
    return {
        "name": service.name,
        "stand": service.stand,
        "image": service.image,
        "address": address,
        "port": service.front_port,
        "url": url(service, address),
        "published": [
            *(f"{publish.address}:{publish.port}" for publish in service.publish),
            *supervisor.clusters.published(service),
        ],
        "engine": engine,
        "wanted": len(replicas.slots(service)),
        "healthy": sum(row["healthy"] for row in rows),
        "seen": SEEN.get(engine, "nothing") if its or not rows else "nothing (on a cluster)",
        "replicas": rows,
    }


def _replica(keeper: Keeper, backend: BackendStatus | None) -> dict[str, Any]:
    replica, condition = keeper.replica, keeper.condition
    # Of a replica that is being adopted the balance has known all the while how it is.
    healthy = condition.phase in ("healthy", "adopting") and (backend is None or backend.healthy)
    return {
        "id": replica.name,
        "container": replica.id,
        "site": replica.site,
        "node": None,
        "engine": replica.engine,
        "address": replica.address,
        "healthy": healthy,
        "phase": "draining" if keeper.draining else condition.phase,
        "start_ms": None if condition.start_ms is None else round(condition.start_ms, 1),
        "pid": condition.pid or None,
        "restarts": condition.restarts,
        "problem": condition.problem or ("" if healthy or not backend else backend.detail),
    }


def url(service: ResolvedService, address: str | None) -> str | None:
    """What to give curl; None for what speaks no HTTP."""
    if address is None or service.mode != "http":
        return None
    scheme, usual = ("https", 443) if service.certificate else ("http", 80)
    return (
        f"{scheme}://{address}"
        + (f":{service.front_port}" if service.front_port != usual else "")
        + "/"
    )


def _site_healthy(site: str, services: list[dict[str, Any]]) -> bool:
    rows = [row for service in services for row in service["replicas"] if row["site"] == site]
    return all(row["healthy"] for row in rows)
