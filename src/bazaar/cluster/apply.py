"""Looking at machines and changing them: facts, plan, and phases with barriers between them.

One connection to each machine; one script for the facts, one for each phase in which it has
something to do. A machine that fails is left out of what follows, and told at the end, where the
others can do without it: a worker always, a control plane that cannot be reached where the
cluster lives. Else the phases after it are not begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bazaar.cluster import addons, checks, etcd, network, pki, store
from bazaar.cluster import facts as ask
from bazaar.cluster.api import manifests_script, nodes_script
from bazaar.cluster.description import Cluster, Node, check
from bazaar.cluster.desired import Desired, desired
from bazaar.cluster.facts import Facts
from bazaar.cluster.parts import PHASES, Context, Programs
from bazaar.cluster.plan import NodePlan, Plan, plan_api, plan_node, plan_without
from bazaar.cluster.scripts import phases, script
from bazaar.errors import BazaarError, ClusterError, UnreachableError
from bazaar.model.record import replace

if TYPE_CHECKING:
    from bazaar.host.remote import Connection

Progress = Callable[[str], None]
SCRIPT_SECONDS = 300.0
_PLANE_PHASES = ("etcd", "control-plane")
_TITLES = {
    "prepare": "files and containerd",
    "etcd": "etcd",
    "control-plane": "control plane",
    "node": "kubelet, kube-proxy, DNS",
}


class Session:
    """Connections to all machines of a cluster, and what they said. `open_session` makes it."""

    def __init__(
        self, cluster: Cluster, programs: Programs, extras: Programs, progress: Progress
    ) -> None:
        self.cluster, self.programs, self.extras = cluster, programs, extras
        self.progress = progress
        self.connections: dict[str, Connection] = {}
        self.facts: dict[str, Facts] = {}
        self.ages: dict[str, float] = {}
        self.contexts: dict[str, Context] = {}
        self.wanted: dict[str, Desired] = {}
        self.members: list[str] = []  # of etcd, by the names of their nodes
        self.lost: dict[str, BazaarError] = {}  # machines that are left out, and why

    @property
    def there(self) -> list[Node]:
        """The machines that are not left out."""
        return [node for node in self.cluster.nodes if node.name not in self.lost]

    @property
    def plane(self) -> Node:
        """A control plane to ask: one that knows the cluster's nodes, where one does."""
        planes = [node for node in self.there if node.control_plane]
        knowing = [n for n in planes if n.name in self.facts and self.facts[n.name].nodes]
        return (knowing or planes)[0]

    async def attempt(self, nodes: Sequence[Node], work: Callable[[Node], Awaitable[None]]) -> None:
        """Do something with each of them at once; workers that fail are left out from then on.

        Raises ClusterError where a control plane fails.
        """
        nodes = [node for node in nodes if node.name not in self.lost]
        failed = await _failed(nodes, work)
        self.lost |= failed
        if any(node.bears and node.name in failed for node in nodes):
            raise _failure(self.cluster, self.lost, len(self.cluster.nodes))

    def complete(self) -> None:
        """Raise ClusterError where machines were left out."""
        if self.lost:
            raise _failure(self.cluster, self.lost, len(self.cluster.nodes))

    async def connect(self, nodes: Sequence[Node], work: Callable[[Node], Awaitable[None]]) -> None:
        """Connect to machines: one that cannot be reached is left out where another may do."""
        self.lost |= await _failed(nodes, work)
        refused = [one for one in self.lost.values() if not isinstance(one, UnreachableError)]
        if refused or not any(node.control_plane for node in self.there):
            raise _failure(self.cluster, self.lost)

    async def look(self) -> None:
        """Ask all machines what they are. Raises where one cannot say."""
        self.progress(f"{self.cluster.name}: looking at {_count(len(self.cluster.nodes))}")
        planes = [node for node in self.there if node.control_plane]
        await self.attempt(
            self.there, lambda node: self._look(node, node is planes[0] or node.etcd)
        )
        # One control plane's word is enough; where it has none, the others may.
        if not self.facts[planes[0].name].nodes and planes[1:]:
            await self.attempt(planes[1:], lambda node: self._look(node, True))
        gone = [node for node in self.cluster.nodes if node.bears and node.name in self.lost]
        if gone and not self.facts[self.plane.name].nodes:
            # A cluster is not begun with a part of its control planes.
            raise _failure(self.cluster, self.lost)
        self.cluster = replace(self.cluster, nodes=tuple(map(self._placed, self.cluster.nodes)))

    async def _look(self, node: Node, api: bool) -> None:
        result = await self.connections[node.name].run(
            ask.script(api=api), root=True, what="reading its facts"
        )
        facts = ask.parse(result.output, node.name)
        with contextlib.suppress(ValueError):
            # The clock was read while the script ran: its time is what we cannot know better.
            ago = result.seconds / 2
            self.ages[node.name] = float(facts.value("clock")) - (time.time() - ago)
        self.facts[node.name] = facts

    def _placed(self, node: Node) -> Node:
        """The node with the address its own network knows it by, where ours is another's."""
        facts = self.facts.get(node.name)
        if facts is None:
            return node
        own = {word.partition("/")[0] for word in facts.addresses if not word.startswith("127.")}
        if self.cluster.dual and not node.address6:
            node = replace(node, address6=facts.value("source6"))
        if node.address or node.machine.address in own:
            return node
        return replace(node, address=facts.value("source"))

    def plan(self, *, keep: bool) -> Plan:
        """What has to be done. ``keep``: new keys are stored, since they will be used."""
        check(self.cluster)
        checks.refuse(self.there, self.cluster, self.facts, self.ages)
        keys = store.keys(self.cluster, store=keep)
        way = network.chosen(self.cluster, self.facts)
        gvisor = self.cluster.gvisor and "runsc" in self.extras.has
        nodes: list[NodePlan] = []
        for node in self.there:
            context = Context(
                self.cluster,
                node,
                self.facts[node.name],
                way,
                keys,
                self.programs,
                self.extras,
                gvisor,
            )
            self.contexts[node.name] = context
            self.wanted[node.name] = desired(context)
            nodes.append(plan_node(context, self.wanted[node.name]))
        authority = pki.trusted(keys["authorities"]["ca"])
        given = addons.Given(gvisor, self.extras.has, authority)
        manifests, digest = addons.document(self.cluster, given)
        asked = [node for node in self.cluster.nodes if node.name in self.facts]
        fresh = not any(self.facts[node.name].nodes for node in asked if node.control_plane)
        for facts in (self.facts[node.name] for node in self.cluster.stores if node in asked):
            self.members = self.members or list(facts.members)
        api = plan_api(self.cluster, self.there, self.facts, manifests, digest)
        return Plan(self.cluster, tuple(nodes), api, fresh)

    def _may_change(self, plan: Plan) -> None:
        """Refuse to stop parts of control planes while another control plane is lost."""
        gone = [node for node in self.cluster.nodes if node.bears and node.name in self.lost]
        stopping = [
            one.node.name
            for one in plan.nodes
            if one.node.bears and any(u.phase in _PLANE_PHASES for u in one.starts)
        ]
        if gone and stopping:
            raise ClusterError(
                f"{_failure(self.cluster, self.lost).message}\n"
                f"control planes would be changed meanwhile ({', '.join(stopping)}): nothing was",
                hint=f"bring {gone[0].name} back, or apply without it: --machines with the others",
            )

    async def apply(self, plan: Plan) -> dict[str, float]:
        """Make the plan true; the seconds each phase took."""
        self._may_change(plan)
        took: dict[str, float] = {}
        began = time.monotonic()
        if any(node.sets for node in plan.nodes):
            await self.carry(plan)
            took["carry"] = time.monotonic() - began
        for phase in PHASES:
            # What nodes start asks the API for what the manifests allow.
            if phase == "node" and plan.api.manifests:
                began = time.monotonic()
                await self.manifests(plan)
                took["manifests"] = time.monotonic() - began
            began = time.monotonic()
            busy = [node for node in plan.nodes if phase in phases(node)]
            if not busy:
                continue
            self.progress(f"{plan.cluster.name}: {_TITLES[phase]}, {_count(len(busy))}")
            # Once it serves, one control plane at a time: the others go on.
            one_by_one = phase in _PLANE_PHASES and not plan.fresh
            for group in [[node] for node in busy] if one_by_one else [busy]:
                await self.attempt(
                    [node.node for node in group],
                    lambda node, phase=phase: self.phase(plan, node, phase),
                )
            took[phase] = time.monotonic() - began
        if plan.api.nodes:
            began = time.monotonic()
            await self.api(plan)
            took["api"] = time.monotonic() - began
        return took

    async def api(self, plan: Plan) -> None:
        """Tell the API what it does not know of nodes, and wait until all are ready."""
        left = plan_without(plan.api, self.lost)
        if left.nodes:
            self.progress(f"{plan.cluster.name}: waiting for the nodes")
            await self._tell(nodes_script(left, self.contexts[self.plane.name]))

    async def manifests(self, plan: Plan) -> None:
        """Tell the API the manifests, where it has others."""
        if plan.api.manifests:
            self.progress(f"{plan.cluster.name}: manifests")
            await self._tell(manifests_script(plan.api, self.contexts[self.plane.name]))

    async def _tell(self, text: str) -> None:
        async def tell(node: Node) -> None:
            await self.connections[node.name].run(
                text, root=True, timeout=SCRIPT_SECONDS, what="telling the API"
            )

        await self.attempt([self.plane], tell)

    async def carry(self, plan: Plan) -> None:
        busy = [node for node in plan.nodes if node.sets]
        if busy:
            self.progress(f"{plan.cluster.name}: carrying programs, {_count(len(busy))}")
            by_name = {node.node.name: node.sets for node in busy}
            await self.attempt(
                [node.node for node in busy],
                lambda node: self._carry_to(node, by_name[node.name]),
            )

    async def _carry_to(self, node: Node, sets: Sequence[str]) -> None:
        connection = self.connections[node.name]
        # Its manifest is written last: with it, a set is whole.
        await asyncio.gather(
            *(connection.send(Path(one), f"{ask.SETS}/{Path(one).name}", root=True) for one in sets)
        )

    async def phase(self, plan: Plan, node: Node, phase: str) -> None:
        """Do what one machine has to do in one phase."""
        if phase == "etcd" and not plan.fresh:
            await self._join(plan, node)
        text = script(plan.of(node), self.wanted[node.name], self.contexts[node.name], phase)
        await self.connections[node.name].run(
            text, root=True, timeout=SCRIPT_SECONDS, what=_TITLES[phase]
        )

    async def _join(self, plan: Plan, node: Node) -> None:
        """Have etcd's members take a new one in, and tell it who they are."""
        if node.name in self.members:
            return
        member = next(
            one for one in self.there if one in plan.cluster.stores and one.name in self.members
        )
        text = etcd.add(node)
        what = f"taking {node.name} into etcd"
        await self.connections[member.name].run(text, root=True, what=what)
        context = self.contexts[node.name]
        self.contexts[node.name] = replace(context, members=tuple(self.members))
        self.members.append(node.name)


@contextlib.asynccontextmanager
async def open_session(
    cluster: Cluster,
    programs: Programs,
    extras: Programs,
    progress: Progress,
    *,
    some: bool = False,
) -> AsyncGenerator[Session]:
    """Connect to all machines of a cluster at once. Raises ClusterError, naming each that fails.

    With ``some``, those that cannot be reached are left out where the others can do without.
    """
    from bazaar.host import remote

    session = Session(cluster, programs, extras, progress)
    async with contextlib.AsyncExitStack() as opened:

        async def connect(node: Node) -> None:
            session.connections[node.name] = await opened.enter_async_context(
                remote.connect(node.machine)
            )

        progress(f"{cluster.name}: connecting to {_count(len(cluster.nodes))}")
        await session.connect(cluster.nodes, connect)
        if session.lost and not some:
            raise _failure(cluster, session.lost)
        yield session


async def each(
    cluster: Cluster, nodes: Sequence[Node], work: Callable[[Node], Awaitable[None]]
) -> None:
    """Do something with each machine at the same time; all come to their end.

    Raises ClusterError that names every machine that failed and how many did not.
    """
    if failed := await _failed(nodes, work):
        raise _failure(cluster, failed, len(nodes))


async def _failed(
    nodes: Sequence[Node], work: Callable[[Node], Awaitable[None]]
) -> dict[str, BazaarError]:
    """Do something with each machine at the same time; what each failed of, when all have ended."""
    results = await asyncio.gather(*(work(node) for node in nodes), return_exceptions=True)
    failed: dict[str, BazaarError] = {}
    for node, result in zip(nodes, results, strict=True):
        if isinstance(result, BazaarError):
            failed[node.name] = result
        elif result is not None:
            raise result
    return failed


def _failure(
    cluster: Cluster, failed: Mapping[str, BazaarError], count: int | None = None
) -> ClusterError:
    """What machines failed with. ``count``: of so many that were asked, the others did it.

    Without it nothing was changed on any of them.
    """
    lines: list[str] = []
    for error in failed.values():
        lines.append(f"cluster {cluster.name}: {error.message}")
        said = str(getattr(error, "errors", "")).strip().splitlines()
        lines += [f"  {line.strip()}" for line in said[-5:-1]]
    first = next(iter(failed.values()))
    hints = [first.hint] if first.hint else []
    if count is None:
        hints.append("nothing was changed; run the same again then")
    else:
        if rest := count - len(failed):
            hints.insert(0, f"the other {_count(rest)} did what was asked")
        hints.append("run the same again: it goes on from here")
    return ClusterError("\n".join(lines), hint="\n".join(hints))


def _count(number: int) -> str:
    return f"{number} machine{'' if number == 1 else 's'}"
