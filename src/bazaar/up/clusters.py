"""Clusters from one end to the other: machines, programs, keys, plan and phases.

The layers do one thing each and do not know one another; here they meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from bazaar.cluster import store
from bazaar.cluster.description import Cluster, Node
from bazaar.errors import BazaarError, ClusterError, LockedError, MissingError
from bazaar.host import paths
from bazaar.model.change import Change
from bazaar.model.record import field, record, replace
from bazaar.up import cluster_request
from bazaar.up.cluster_request import Request, leaving

if TYPE_CHECKING:
    from bazaar.cluster.parts import Programs
    from bazaar.cluster.plan import Plan
    from bazaar.host.machines import LocalMachine

Progress = Callable[[str], None]
PACKAGES = ("containerd", "runc", "haproxy")  # of local machines


@record
class Outcome:
    """What applying a plan came to."""

    cluster: Cluster
    changes: list[Change]
    seconds: float
    phases: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what it goes without, and why


@record
class Prepared:
    """A cluster that can be applied: its machines are there."""

    cluster: Cluster
    local: bool
    gone: tuple[Node, ...] = ()  # machines that leave
    phases: Mapping[str, float] = field(default_factory=dict)  # what took how long so far


def plan(request: Request, progress: Progress) -> tuple[Cluster | None, list[Change]]:
    """What `apply` would change; nothing is. The cluster is None while it has no machines."""
    return of_one(plan_all([request], progress))


def plan_all(
    requests: Sequence[Request], progress: Progress
) -> dict[str, tuple[Cluster | None, list[Change]] | BazaarError]:
    """What `apply_all` would change, by cluster: all are looked at at the same time."""

    async def look(request: Request) -> tuple[Cluster | None, list[Change]]:
        name = cluster_request.name_of(request)
        if lacking := cluster_request.lacking(request, name):
            version = cluster_request.version_of(request)
            made = [
                Change("create", "machine", f"machine {n + 1}", "local") for n in range(lacking)
            ]
            return None, [*made, Change("create", "cluster", name, version)]
        cluster = cluster_request.resolved(request, name)
        planned = await _planned(cluster, progress)
        return planned.cluster, [*changes_of(planned), *_going(leaving(request))]

    return asyncio.run(_each({cluster_request.name_of(one): look(one) for one in requests}))


def _going(names: Sequence[str]) -> list[Change]:
    return [Change("destroy", "machine", name, "drained, and out of the cluster") for name in names]


def apply(request: Request, progress: Progress) -> Outcome:
    """Make the cluster as it is to be. Raises ClusterError, SpecError and the layers' own."""
    return of_one(apply_all([request], progress))


def apply_all(requests: Sequence[Request], progress: Progress) -> dict[str, Outcome | BazaarError]:
    """Make clusters as they are to be, at the same time; what each came to, by its name."""
    began = time.monotonic()
    results: dict[str, Outcome | BazaarError] = {}
    ready: dict[str, Prepared] = {}
    with contextlib.ExitStack() as locked:
        for request in requests:
            name = cluster_request.name_of(request)
            try:
                locked.enter_context(store.lock(name, "cluster apply"))
                # Local machines are made one after the other: they share what they are made of.
                ready[name] = _prepare(request, name, progress)
            except BazaarError as error:
                results[name] = error
        work = {name: _applied(one, progress) for name, one in ready.items()}
        for name, result in asyncio.run(_each(work)).items():
            results[name] = result
            if isinstance(result, BazaarError):
                continue
            phases = {**ready[name].phases, **result.phases}
            seconds = time.monotonic() - began
            results[name] = replace(result, seconds=seconds, phases=phases)
            if ready[name].local and ready[name].gone:
                _destroy_machines([node.name for node in ready[name].gone], name, progress)
    return {name: results[name] for name in map(cluster_request.name_of, requests)}


Result = TypeVar("Result")


def of_one(results: Mapping[str, Result | BazaarError]) -> Result:
    """The result of the only one; what it failed with is raised."""
    (result,) = results.values()
    if isinstance(result, BazaarError):
        raise result
    return result


async def _each(work: Mapping[str, Awaitable[Result]]) -> dict[str, Result | BazaarError]:
    """All at the same time; what one fails with stops no other."""
    found = await asyncio.gather(*work.values(), return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException) and not isinstance(result, BazaarError):
            raise result
    return dict(zip(work, cast("list[Result | BazaarError]", found), strict=True))


def _prepare(request: Request, name: str, progress: Progress) -> Prepared:
    """Make the local machines that lack, and work out what the cluster is to be."""
    cluster_request.same_version(request, name)
    phases: dict[str, float] = {}
    if lacking := cluster_request.lacking(request, name):
        began = time.monotonic()
        _make_machines(name, lacking, request, progress)
        phases["machines"] = time.monotonic() - began
    cluster = cluster_request.resolved(request, name)
    local = request.local is not None or cluster_request.is_local(name)
    leave = leaving(request)
    gone = tuple(node for node in cluster_request.before(name) if node.name in leave)
    return Prepared(cluster, local, gone, phases)


def kubeconfig(name: str | None) -> str:
    """An administrator's kubeconfig of a cluster."""
    from yaml import safe_dump

    from bazaar.cluster import pki
    from bazaar.cluster.parts import kubeconfig_of

    cluster = cluster_request.known(store.the_one(name))
    keys = store.keys(cluster, store=True)
    document = kubeconfig_of(
        cluster.name,
        cluster.server,
        "kubernetes-admin",
        pki.trusted(keys["authorities"]["ca"]),
        keys["pairs"]["/admin"],
    )
    return safe_dump(document, sort_keys=False)


def reset(chosen: str, progress: Progress, *, forget: bool = False) -> None:
    """Take a cluster away from its machines; local machines of its own go altogether.

    With ``forget``, machines that do not answer are left as they are.
    """
    from bazaar.cluster import removal

    with store.lock(chosen, "cluster reset"):
        cluster = cluster_request.known(chosen)
        if cluster_request.is_local(chosen):
            _destroy_machines(cluster_request.local_names(chosen), chosen, progress)
        else:
            try:
                asyncio.run(removal.reset(cluster, progress))
            except ClusterError:
                if not forget:
                    raise
        store.forget(chosen)


def programs(version: str, progress: Progress) -> tuple[Programs, Programs]:
    """Kubernetes' programs of a version, and what machines are given besides."""
    from bazaar.cluster import binaries, bundle, extras
    from bazaar.cluster.parts import Programs
    from bazaar.run import engines

    if brought := bundle.taken(version):
        return brought
    found = binaries.get(version, progress)
    folder = found.folder.parent
    runsc: Path | None = None
    addons: Mapping[str, Path] | None = None
    lacks: list[str] = []
    try:
        runsc = engines.ensure("gvisor", progress)
    except MissingError as error:
        lacks.append(f"no kernels of pods' own (RuntimeClass gvisor): {error.message}")
    kubernetes = Programs(version, str(folder), extras.of(folder))
    try:
        addons = binaries.addons(progress)
    except MissingError as error:
        lacks.append(f"no StorageClass and no metrics: {error.message}")
    besides = extras.make(found.folder / "pause", runsc, addons)
    return kubernetes, replace(besides, lacks=tuple(lacks))


async def _planned(cluster: Cluster, progress: Progress) -> Plan:
    from bazaar.cluster.apply import open_session

    ours, besides = programs(cluster.version, progress)
    async with open_session(cluster, ours, besides, progress) as session:
        await session.look()
        return session.plan(keep=False)


async def _applied(prepared: Prepared, progress: Progress) -> Outcome:
    from bazaar.cluster import life
    from bazaar.cluster.apply import open_session

    cluster, local, gone = prepared.cluster, prepared.local, prepared.gone
    ours, besides = programs(cluster.version, progress)
    async with open_session(cluster, ours, besides, progress, some=True) as session:
        await session.look()
        # Those that leave are remembered until they have left.
        whole = replace(session.cluster, nodes=(*session.cluster.nodes, *gone))
        store.save(whole, local=local)
        planned = session.plan(keep=True)
        for node in gone:
            await life.remove(session, node)
        phases = {} if planned.empty else await session.apply(planned)
        store.save(session.cluster, local=local)
        session.complete()
    changes = [*changes_of(planned), *_going([node.name for node in gone])]
    return Outcome(session.cluster, changes, 0.0, phases, besides.lacks)


def changes_of(planned: Plan) -> list[Change]:
    """A plan in lines."""
    from bazaar.cluster.plan import changes

    return changes(planned)


def make_machines(count: int, progress: Progress, owner: str = "") -> list[LocalMachine]:
    """Local machines that can become a cluster: with its system's packages, seeing our programs.

    ``owner`` is the cluster they are made for, where it is known.
    """
    from bazaar.cluster.facts import SETS
    from bazaar.host import machines

    shown = paths.cache() / "cluster"
    # Made before the machines, which see it: what comes into it later is there at once.
    shown.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            return machines.create(
                count, progress, packages=PACKAGES, binds={shown: SETS}, owner=owner
            )
        except LockedError:  # other clusters' machines are being made
            progress("waiting for other machines to be made")
            time.sleep(0.5)


def _make_machines(name: str, count: int, request: Request, progress: Progress) -> None:
    from bazaar.host import files

    programs(cluster_request.version_of(request), progress)
    make_machines(count, progress, owner=name)
    files.write_json(cluster_request.local_file(name), cluster_request.local_names(name))


def _destroy_machines(names: Sequence[str], name: str, progress: Progress) -> None:
    from bazaar.host import files, machines

    there = {one.machine.name for one in machines.listing()}
    if found := [one for one in names if one in there]:
        machines.destroy(found, progress)
    kept = [one for one in cluster_request.local_names(name) if one not in names]
    files.write_json(cluster_request.local_file(name), kept)
