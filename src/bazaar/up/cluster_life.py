"""What is done to clusters that live: status, upgrade, certificates, backups, restores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bazaar.cluster import rotation, store
from bazaar.cluster.description import Cluster
from bazaar.cluster.doctor import Finding
from bazaar.cluster.status import Status
from bazaar.errors import BazaarError, StateError, UsageError
from bazaar.host import files
from bazaar.model.record import record, replace
from bazaar.up import cluster_request, clusters

Progress = Callable[[str], None]
_PARTS = ("cluster.json", "keys.json", "snapshot.db")  # of a backup
_LARGEST = 16 << 30


@record
class Certificate:
    """One certificate of a cluster."""

    node: str  # "": it is no machine's
    name: str
    authority: bool
    until: float  # seconds since 1970


def status(name: str | None, progress: Progress) -> Status:
    """How a cluster is; machines that do not answer are told, not raised."""
    from bazaar.cluster import status as asked

    cluster = cluster_request.known(store.the_one(name))
    return asked.status(cluster, store.keys(cluster, store=False), progress)


def doctor(name: str | None, progress: Progress) -> tuple[Cluster, int, list[Finding]]:
    """What is wrong with a cluster: how many machines answered, and the findings."""
    from bazaar.cluster import doctor as asked

    cluster = cluster_request.known(store.the_one(name))
    answered, found = asked.examine(cluster, progress)
    return cluster, answered, found


def certificates(name: str | None) -> list[Certificate]:
    """All certificates of a cluster, those first that end first."""
    cluster = cluster_request.known(store.the_one(name))
    keys = store.keys(cluster, store=False)
    found = [
        Certificate("", one, True, about["until"]) for one, about in keys["authorities"].items()
    ]
    for place, pair in keys["pairs"].items():
        node, _, one = place.partition("/")
        found.append(Certificate(node, one, False, pair["until"]))
    return sorted(found, key=lambda one: (one.until, one.node, one.name))


def rotate(name: str | None, progress: Progress) -> clusters.Outcome:
    """Issue every certificate anew and bring them to the machines, one control plane at a time."""
    chosen = store.the_one(name)
    cluster = cluster_request.known(chosen)
    with store.lock(chosen, "cluster certs rotate"):
        store.drop_pairs(cluster)
    return clusters.apply(cluster_request.Request(name=chosen), progress)


def rotate_authorities(name: str | None, progress: Progress) -> clusters.Outcome:
    """Bring a cluster new authorities: trusted, then used, then alone, each by an apply of its own.

    One that was interrupted goes on. Raises ClusterError where a machine cannot take part: what is
    trusted everywhere only may be used.
    """
    chosen = store.the_one(name)
    cluster = cluster_request.known(chosen)
    began = time.monotonic()
    # First of all, all machines are where it is by now.
    outcome = clusters.apply(cluster_request.Request(name=chosen), progress)
    changes = [*outcome.changes]
    while True:
        with store.lock(chosen, "cluster certs rotate"):
            at = store.turn(cluster)
        progress(f"{chosen}: {rotation.WORDS[at]}")
        outcome = clusters.apply(cluster_request.Request(name=chosen), progress)
        changes += outcome.changes
        if not at:
            break
    return replace(outcome, changes=changes, seconds=time.monotonic() - began)


def upgrade(name: str | None, version: str | None, progress: Progress) -> clusters.Outcome:
    """Bring a cluster to another version, machine by machine. Raises ClusterError, UsageError."""
    chosen = store.the_one(name)
    with store.lock(chosen, "cluster upgrade"):
        cluster = cluster_request.known(chosen)
        wanted = version or cluster_request.version_of(cluster_request.Request())
        _one_minor(cluster, wanted)
        began = time.monotonic()
        local = cluster_request.is_local(chosen)
        outcome = asyncio.run(_upgraded(cluster, wanted, local, progress))
    return replace(outcome, seconds=time.monotonic() - began)


async def _upgraded(
    cluster: Cluster, version: str, local: bool, progress: Progress
) -> clusters.Outcome:
    from bazaar.cluster import life
    from bazaar.cluster.apply import open_session

    after = replace(cluster, version=version)
    async with contextlib.AsyncExitStack() as opened:
        new = await opened.enter_async_context(
            open_session(after, *clusters.programs(version, progress), progress)
        )
        old = await opened.enter_async_context(
            open_session(cluster, *clusters.programs(cluster.version, progress), progress)
        )
        await new.look()
        planned = new.plan(keep=True)
        done: list[str] = []
        try:
            await life.upgrade(new, planned, back=old, done=done)
        finally:
            if done:  # from the first machine on, the way is forward
                store.save(after, local=local)
    return clusters.Outcome(after, clusters.changes_of(planned), 0.0)


def _one_minor(cluster: Cluster, version: str) -> None:
    from bazaar.cluster import binaries

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("."))

    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        known = ", ".join(binaries.VERSIONS)
        raise UsageError(f"{version!r} is no version of Kubernetes", hint=f"versions: {known}")
    now, then = numbers(cluster.version), numbers(version)
    if then < now:
        raise UsageError(
            f"{cluster.name} is at {cluster.version}: Kubernetes does not go back to {version}",
            hint="`bazaar cluster restore` brings a backup back",
        )
    if then[0] != now[0] or then[1] - now[1] > 1:
        raise UsageError(
            f"from {cluster.version} to {version} is more than one minor version",
            hint=f"upgrade to {now[0]}.{now[1] + 1} first",
        )


def bundle(target: Path, version: str | None, progress: Progress) -> int:
    """Write all that installs a version of Kubernetes into one file; its size in bytes.

    Without apt here there are no packages in it: machines have to have containerd then.
    """
    from bazaar.cluster import bundle as bundles
    from bazaar.cluster import debs

    wanted = version or cluster_request.version_of(cluster_request.Request())
    kubernetes, extras = clusters.programs(wanted, progress)
    system = debs.system()
    packages = debs.archive(progress) if system else None
    progress(f"{target}: writing and signing it")
    return bundles.make(target, kubernetes, extras, packages, system)


# ------------------------------------------------------- backup and restore


def backup(name: str | None, target: Path, progress: Progress) -> int:
    """Write a backup, whole or not at all; its size in bytes.

    It holds what etcd holds (secrets encrypted), the description, and the keys as they are sealed
    here: whoever restores it needs the passphrase or the key file.
    """
    chosen = store.the_one(name)
    cluster = cluster_request.known(chosen)
    part = target.with_name(f".{target.name}.part")
    with tempfile.TemporaryDirectory() as made, store.lock(chosen, "cluster backup"):
        snapshot = Path(made) / "snapshot.db"
        asyncio.run(_snapshot(cluster, snapshot, progress))
        try:
            files.write_atomic(part, b"")  # for its owner alone, from the first byte
            with tarfile.open(part, "w:gz") as archive:
                for one in _PARTS[:2]:
                    archive.add(store.folder(chosen) / one, one)
                archive.add(snapshot, "snapshot.db")
            part.replace(target)
        except OSError as error:
            raise StateError(f"{target}: cannot be written: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
    return target.stat().st_size


async def _snapshot(cluster: Cluster, target: Path, progress: Progress) -> None:
    from bazaar.cluster import etcd
    from bazaar.cluster.apply import open_session

    async with open_session(
        cluster, *clusters.programs(cluster.version, progress), progress, some=True
    ) as session:
        await session.look()
        session.plan(keep=False)
        progress(f"{cluster.name}: taking a snapshot of etcd")
        last: BazaarError | None = None
        for node in [node for node in session.there if node in session.cluster.stores]:
            there = session.connections[node.name]
            try:
                script = etcd.save(session.contexts[node.name])
                await there.run(script, root=True, what="a snapshot of etcd")
                await there.fetch(etcd.SNAPSHOT, target, root=True)
                await there.run(f"rm -f {etcd.SNAPSHOT}", root=True)
                return
            except BazaarError as error:
                last = error
        assert last is not None
        raise last


def restore(source: Path, request: cluster_request.Request, progress: Progress) -> Cluster:
    """Bring a cluster back to what a backup holds, on its machines or on others.

    What is there of the cluster is replaced; whether etcd has a quorum still does not matter.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        about = _unpacked(source, folder)
        name = request.name or str(about["cluster"]["name"])
        with store.lock(name, "cluster restore"):
            cluster = _prepared(name, folder, request)
            asyncio.run(_restored(cluster, folder / "snapshot.db", request, progress))
    return cluster


def _unpacked(source: Path, folder: Path) -> dict[str, Any]:
    """The parts of a backup; nothing else that an archive may hold is looked at."""
    try:
        with tarfile.open(source, "r:*") as archive:
            members = {member.name: member for member in archive.getmembers()}
            for part in _PARTS:
                member = members.get(part)
                if member is None or not member.isreg() or member.size > _LARGEST:
                    raise StateError(f"{source} is no backup of a cluster: it has no {part}")
                content = archive.extractfile(member)
                assert content is not None
                with (folder / part).open("wb") as file:
                    while chunk := content.read(1 << 20):
                        file.write(chunk)
        return json.loads((folder / "cluster.json").read_text())
    except FileNotFoundError as error:
        raise UsageError(f"{source}: there is no such file") from error
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise StateError(f"{source} is no backup of a cluster: {error}") from error


def _prepared(name: str, folder: Path, request: cluster_request.Request) -> Cluster:
    """The description and the keys where they belong, by the backup where there are none."""
    place = store.folder(name)
    if store.load(name) is None:
        for part in ("cluster.json", "keys.json"):
            files.write_atomic(place / part, (folder / part).read_bytes())
    else:
        # What is in etcd is encrypted by the backup's own key.
        files.write_atomic(place / "keys.json", (folder / "keys.json").read_bytes())
    return cluster_request.resolved(replace(request, name=name), name)


async def _restored(
    cluster: Cluster, snapshot: Path, request: cluster_request.Request, progress: Progress
) -> None:
    from bazaar.cluster import life
    from bazaar.cluster.apply import open_session

    programs = clusters.programs(cluster.version, progress)
    async with open_session(cluster, *programs, progress) as session:
        await session.look()
        store.save(session.cluster, local=cluster_request.is_local(cluster.name))
        await life.restore(session, snapshot)
