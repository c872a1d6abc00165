"""Which containers a user means."""

from __future__ import annotations

from collections.abc import Sequence

from bazaar.errors import UsageError
from bazaar.model.container import ContainerState
from bazaar.up import client, cluster_pods


def containers(names: Sequence[str], bazaar: str | None) -> list[ContainerState]:
    """The containers that ``names`` mean, pods on clusters among them, running ones first.

    A name is a service, SERVICE/SITE, SERVICE/SITE/N (on a cluster, SERVICE/SITE/POD), a
    container's name or its id. No name means all replicas of the bazaar. Raises UsageError for a
    name that fits nothing.
    """
    from bazaar.run import containers as engine

    pods = [pod for name in client.running() for pod in cluster_pods.listing(name)]
    listed = [*engine.listing(), *pods]
    everything = sorted(listed, key=lambda c: (c.status != "running", c.name))
    replicas = [c for c in everything if dict(c.labels).get("bazaar")]
    if bazaar is not None:
        replicas = [c for c in replicas if dict(c.labels)["bazaar"] == client.the_one(bazaar)]
    elif not names:
        one = client.the_one(None)
        replicas = [c for c in replicas if dict(c.labels)["bazaar"] == one]
    if not names:
        if not replicas:
            raise UsageError("no replica is there", hint="`bazaar status` shows why")
        return replicas
    others = [] if bazaar else [c for c in everything if c not in replicas]
    found: list[ContainerState] = []
    for name in names:
        matching = [c for c in [*replicas, *others] if _fits(c, name)]
        if not matching:
            known = sorted({c.name for c in [*replicas, *others]})
            raise UsageError(
                f"there is no replica or container '{name}'",
                hint="there are: " + ", ".join(known[:20]) if known else "none is there at all",
            )
        found += [c for c in matching if c not in found]
    _refuse_ambiguity(found)
    return found


def _fits(container: ContainerState, name: str) -> bool:
    return name in (container.id, container.name) or container.name.startswith(f"{name}/")


def _refuse_ambiguity(found: list[ContainerState]) -> None:
    bazaars = {dict(c.labels).get("bazaar", "") for c in found}
    if len(bazaars) > 1:
        raise UsageError(
            f"several bazaars have it: {', '.join(sorted(bazaars))}",
            hint="say which one by --bazaar NAME; `bazaar list` shows them",
        )
