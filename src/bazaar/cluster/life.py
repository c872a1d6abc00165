"""What happens to machines of a cluster that lives: they join, they leave, they are upgraded."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bazaar.cluster import etcd, removal
from bazaar.cluster.apply import Session, each
from bazaar.cluster.description import Node
from bazaar.cluster.facts import ADMIN
from bazaar.cluster.parts import PHASES
from bazaar.cluster.plan import NodePlan, Plan
from bazaar.cluster.scripts import phases
from bazaar.errors import BazaarError, ClusterError
from bazaar.host import remote

DRAIN_SECONDS = 120


def kubectl(session: Session) -> str:
    """`kubectl` on a control plane, as whoever may do anything."""
    context = session.contexts[session.plane.name]
    return f"{context.program('kubectl')} --kubeconfig {ADMIN} --request-timeout 20s"


def drain(session: Session, node: Node) -> str:
    """A script, for a control plane, that moves what runs on a node elsewhere."""
    return (
        f"{kubectl(session)} get node {node.name} >/dev/null 2>&1 || exit 0\n"
        f"{kubectl(session).replace('--request-timeout 20s', '')} drain {node.name} "
        "--ignore-daemonsets --delete-emptydir-data --force "
        f"--timeout={DRAIN_SECONDS}s >/dev/null"
    )


def leaders(session: Session) -> str:
    """A script, for a control plane, that waits until controllers and scheduler are at work.

    One that was started again leads only when the lease of who led before has run out, 15 s:
    until then nobody follows what is moved. A leader renews its lease every two seconds.
    """
    ask = f"{kubectl(session)} -n kube-system get lease $name -o 'jsonpath={{.spec.renewTime}}'"
    return (
        "for name in kube-controller-manager kube-scheduler; do\n"
        f"  seen=$({ask}) renewed=0 tries=0\n"
        "  while [ $renewed -lt 2 ]; do\n"
        '    [ $tries -lt 60 ] || { echo "no $name leads" >&2; exit 1; }\n'
        f"    sleep 1; tries=$((tries + 1)); now=$({ask})\n"
        '    [ "$now" = "$seen" ] || { renewed=$((renewed + 1)); seen=$now; }\n'
        "  done\n"
        "done"
    )


async def remove(session: Session, node: Node) -> None:
    """Let a machine go: drained, out of etcd, no more a node, and nothing of ours left there.

    A machine that does not answer goes all the same: it is lost.
    """
    session.progress(f"{node.name}: leaving the cluster")
    first = session.connections[session.plane.name]
    if node.etcd:
        await _leave_etcd(session, node)
        await _clear(session, node)
        return
    with contextlib.suppress(BazaarError):  # what cannot be moved within its time is lost
        await first.run(
            drain(session, node), root=True, timeout=DRAIN_SECONDS + 30, what="draining"
        )
    if node.control_plane and not any(one.etcd for one in session.cluster.nodes):
        await first.run(etcd.remove(node), root=True, what=f"etcd without {node.name}")
    gone = f"{kubectl(session)} delete node {node.name} --ignore-not-found --wait=false"
    await first.run(gone, root=True, what=f"deleting the node {node.name}")
    await _clear(session, node)


async def _leave_etcd(session: Session, node: Node) -> None:
    """Take a machine out of etcd that is on machines of its own."""
    staying = [
        one
        for one in session.cluster.stores
        if one.name in session.members and one.name in session.connections
    ]
    if not staying:
        raise ClusterError(
            f"{node.name} cannot leave: no machine that stays holds what etcd does",
            hint="let the machines join that are to take its place, and leave it out after that",
        )
    there = session.connections[staying[0].name]
    await there.run(etcd.remove(node), root=True, what=f"etcd without {node.name}")


async def _clear(session: Session, node: Node) -> None:
    """Take away what is ours on a machine, where it answers."""
    with contextlib.suppress(BazaarError):
        async with remote.connect(node.machine, timeout=5) as there:
            await there.run(
                removal.script(session.cluster),
                root=True,
                timeout=120,
                what="taking the cluster away",
            )


async def upgrade(session: Session, plan: Plan, *, back: Session | None, done: list[str]) -> None:
    """Bring the machines to another version, one after the other: control planes, then workers.

    Workers are drained before. A machine that fails is brought back to what it was by ``back``,
    a session of the old version, and the error says so. ``done`` gets the names of those that came
    through.
    """
    await session.carry(plan)
    by_name = {one.node.name: one for one in plan.nodes if not one.empty}
    alone = [node for node in plan.cluster.nodes if node.etcd]
    nodes = [*alone, *plan.cluster.control_planes, *plan.cluster.workers]
    for node in nodes:
        if node.name not in by_name:
            continue
        session.progress(f"{node.name}: {session.programs.version}")
        try:
            await _one(session, plan, by_name[node.name])
        except BazaarError as error:
            told = await _brought_back(back, node)
            raise ClusterError(f"{error.message}\n{told}", hint=error.hint) from error
        done.append(node.name)
    await session.manifests(plan)
    await session.api(plan)


async def _one(session: Session, plan: Plan, one: NodePlan) -> None:
    node = one.node
    others = [n for n in plan.cluster.members if n.name != node.name]
    movable = (
        not node.etcd
        and not plan.cluster.taints_of(node)
        and any(not plan.cluster.taints_of(other) for other in others)
    )
    first = session.connections[session.plane.name]
    if movable:
        await first.run(
            drain(session, node),
            root=True,
            timeout=DRAIN_SECONDS + 30,
            what=f"draining {node.name}",
        )
    for phase in PHASES:
        if phase in phases(one):
            await session.phase(plan, node, phase)
    if node.etcd:
        return
    script = (
        f"{kubectl(session)} wait --for=condition=Ready --timeout=90s node/{node.name} >/dev/null\n"
        f"{kubectl(session)} uncordon {node.name} >/dev/null"
    )
    await first.run(script, root=True, timeout=120, what=f"waiting for {node.name}")
    if node.control_plane:
        await first.run(leaders(session), root=True, timeout=120, what="waiting for controllers")


async def restore(session: Session, snapshot: Path) -> None:
    """Put a snapshot in place of what etcd holds on every control plane, then make all true."""
    plan = session.plan(keep=True)
    await session.carry(plan)
    planes = session.cluster.stores
    await each(session.cluster, session.cluster.nodes, lambda n: _prepared(session, plan, n))
    session.progress(f"{session.cluster.name}: bringing the snapshot back")

    async def send(node: Node) -> None:
        await session.connections[node.name].send(snapshot, etcd.SNAPSHOT, root=True)

    async def put(node: Node) -> None:
        script = etcd.restore(session.contexts[node.name], planes)
        there = session.connections[node.name]
        await there.run(script, root=True, timeout=300, what="restoring etcd")

    async def stop(node: Node) -> None:
        there = session.connections[node.name]
        await there.run("systemctl stop kube-apiserver.service || true", root=True, timeout=60)

    # Who asks etcd stops, too, where it is on other machines.
    others = [node for node in session.cluster.control_planes if node not in planes]
    await each(session.cluster, others, stop)
    # All have it before the first one stops.
    await each(session.cluster, planes, send)
    await each(session.cluster, planes, put)
    await session.look()
    await session.apply(session.plan(keep=True))


async def _prepared(session: Session, plan: Plan, node: Node) -> None:
    """Files and containerd, where something of them is missing; nothing that needs etcd."""
    if PHASES[0] in phases(plan.of(node)):
        await session.phase(plan, node, PHASES[0])


async def _brought_back(back: Session | None, node: Node) -> str:
    if back is None:
        return f"{node.name} stays as it is"
    try:
        await back.look()
        planned = back.plan(keep=True)
        await _one(back, planned, planned.of(node))
    except BazaarError as error:
        return f"{node.name} could not be brought back to {back.programs.version}: {error.message}"
    return f"{node.name} is back at {back.programs.version}"
