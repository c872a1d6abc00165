"""What has to be done to machines so that they are the cluster: pure, from facts to changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bazaar.cluster.description import CONTROL_PLANE_TAINT, Cluster, Node
from bazaar.cluster.desired import Desired
from bazaar.cluster.facts import FOLDER, OWN_LABELS, OWN_TAINTS, Facts, NodeFacts
from bazaar.cluster.parts import UNITS, Context, File, Unit
from bazaar.model.change import Change
from bazaar.model.record import field, record, replace

_SHOWN = 3  # paths named in a line


@record
class NodePlan:
    """What has to be done on one machine."""

    node: Node
    packages: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()  # folders of programs, here, to be carried
    write: tuple[File, ...] = ()
    remove: tuple[str, ...] = ()
    starts: tuple[Unit, ...] = ()
    stops: tuple[str, ...] = ()
    started: Mapping[str, str] = field(default_factory=dict)  # unit: the digest to note
    reasons: Mapping[str, str] = field(default_factory=dict)  # unit: why it is started

    @property
    def empty(self) -> bool:
        work = (self.packages, self.sets, self.write, self.remove, self.starts, self.stops)
        return not any(work)


@record
class ApiPlan:
    """What the cluster itself has to be told."""

    digest: str  # of the manifests
    manifests: str = ""  # "": they are as they should be
    ranges: Mapping[str, str] = field(default_factory=dict)  # node: its share of the pods' range
    labels: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)  # None: to go
    taints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # with - at its end: to go
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # node: its annotations
    missing: tuple[str, ...] = ()  # nodes that are not registered or not ready

    @property
    def nodes(self) -> bool:
        """Whether there is something to say of nodes."""
        return any((self.ranges, self.labels, self.taints, self.own, self.missing))

    @property
    def empty(self) -> bool:
        return not (self.manifests or self.nodes)


@record
class Plan:
    """All of it."""

    cluster: Cluster
    nodes: tuple[NodePlan, ...]
    api: ApiPlan
    fresh: bool  # no control plane runs yet: nothing can be disturbed

    @property
    def empty(self) -> bool:
        return self.api.empty and all(node.empty for node in self.nodes)

    def of(self, node: Node) -> NodePlan:
        """What has to be done on one of the machines."""
        return next(one for one in self.nodes if one.node.name == node.name)


def plan_node(context: Context, wanted: Desired) -> NodePlan:
    """One machine: what it lacks, what differs, what has to be started for that."""
    facts = context.facts
    sets = (context.programs, context.extras)
    write = tuple(
        file
        for path, file in wanted.files.items()
        if facts.files.get(path) != (file.digest, file.mode)
    )
    known = {path for path in facts.files if path not in wanted.files}
    starts: list[Unit] = []
    reasons: dict[str, str] = {}
    for unit in wanted.units:
        reason = _reason(unit, wanted, facts)
        if reason:
            starts.append(unit)
            reasons[unit.name] = reason
    names = {unit.name for unit in wanted.units}
    return NodePlan(
        context.node,
        wanted.packages,
        (
            *(one.folder for one in sets if facts.sets.get(one.there) != one.manifest),
            *([context.packages] if wanted.packages and context.packages else []),
        ),
        write,
        tuple(sorted(known)),
        tuple(starts),
        tuple(sorted(name for name in facts.units if name not in names)),
        {unit.name: wanted.digest_of(unit) for unit in starts},
        reasons,
    )


def _reason(unit: Unit, wanted: Desired, facts: Facts) -> str:
    """Why a unit has to be started; "" when it need not."""
    there = facts.units.get(unit.name)
    if there is None or not there.started:
        return "new"
    if there.active != "active":
        return f"it is {there.active}"
    paths = [path for path in (f"{UNITS}/{unit.name}", *unit.files) if path in wanted.files]
    there_now = {path: facts.files.get(path, ("", 0))[0] for path in paths}
    changed = [path for path in paths if there_now[path] != wanted.files[path].digest]
    if there.started == wanted.digest_of(unit):
        # It ran with the right files; whether it was started again since, nobody knows.
        return f"{_listed(changed)} changed there" if changed else ""
    return f"{_listed(changed)} changed" if changed else "it runs with older files"


def plan_api(
    cluster: Cluster,
    there: Sequence[Node],
    facts: Mapping[str, Facts],
    manifests: str,
    digest: str,
) -> ApiPlan:
    """The API's objects, by what a control plane said of them, for the nodes that are ``there``."""
    planes = [facts[node.name] for node in there if node.control_plane]
    seen = next((one for one in planes if one.nodes), None)
    nodes: Mapping[str, NodeFacts] = seen.nodes if seen else {}
    applied = seen.addons if seen else ""
    members = [node for node in there if node in cluster.members]
    return ApiPlan(
        digest,
        "" if applied == digest else manifests,
        {n.name: ",".join(cluster.pod_ranges_of(n)) for n in members if _moved(cluster, n, nodes)},
        {n.name: d for n in members if (d := _labels(cluster, n, nodes.get(n.name)))},
        {n.name: d for n in members if (d := _taints(cluster, n, nodes.get(n.name)))},
        {n.name: d for n in members if (d := _own(cluster, n, nodes.get(n.name)))},
        tuple(n.name for n in members if not (n.name in nodes and nodes[n.name].ready)),
    )


def _moved(cluster: Cluster, node: Node, nodes: Mapping[str, NodeFacts]) -> bool:
    known = nodes.get(node.name)
    return known is None or known.pod_range != cluster.pod_range_of(node)


def _labels(cluster: Cluster, node: Node, known: NodeFacts | None) -> dict[str, str | None]:
    """The labels that lack or differ, and those of ours that are no more wanted."""
    wanted = cluster.labels_of(node)
    there: Mapping[str, str] = known.labels if known else {}
    found: dict[str, str | None] = {k: v for k, v in wanted.items() if there.get(k) != v}
    ours = known.own_labels if known else ()
    return {**found, **{name: None for name in ours if name not in wanted and name in there}}


def _taints(cluster: Cluster, node: Node, known: NodeFacts | None) -> tuple[str, ...]:
    """As `kubectl taint` has it. A new node has them from its first moment, by its kubelet."""
    if known is None:
        return ()
    wanted = cluster.taints_of(node)
    ours = (*known.own_taints, CONTROL_PLANE_TAINT)
    gone = [f"{one}-" for one in dict.fromkeys(ours) if one not in wanted and one in known.taints]
    # First what goes: a taint of the same key and effect may come with another value.
    return (*gone, *(one for one in wanted if one not in known.taints))


def _own(cluster: Cluster, node: Node, known: NodeFacts | None) -> dict[str, str]:
    """The notes of which are ours, where they are not right."""
    labels, taints = tuple(cluster.labels_of(node)), cluster.taints_of(node)
    before = (known.own_labels, known.own_taints) if known else ((), ())
    if before == (labels, taints):
        return {}
    return {OWN_LABELS: ",".join(labels), OWN_TAINTS: ",".join(taints)}


def plan_without(plan: ApiPlan, lost: Collection[str]) -> ApiPlan:
    """What the API has to be told of the nodes that are not ``lost``."""
    return replace(
        plan,
        ranges={name: one for name, one in plan.ranges.items() if name not in lost},
        labels={name: one for name, one in plan.labels.items() if name not in lost},
        taints={name: one for name, one in plan.taints.items() if name not in lost},
        own={name: one for name, one in plan.own.items() if name not in lost},
        missing=tuple(name for name in plan.missing if name not in lost),
    )


def changes(plan: Plan) -> list[Change]:
    """The plan in lines, one for each thing done to one object."""
    found: list[Change] = []
    for node in plan.nodes:
        found += _changes_of(node, plan)
    api = plan.api
    if api.manifests:
        found.append(Change("update", "manifests", plan.cluster.name, "access, DNS, add-ons"))
    found += [Change("update", "pod range", name, text) for name, text in api.ranges.items()]
    for name, labels in api.labels.items():
        words = [k + "-" if v is None else f"{k}={v}" for k, v in labels.items()]
        found.append(Change("update", "labels", name, " ".join(words)))
    found += [Change("update", "taints", n, " ".join(words)) for n, words in api.taints.items()]
    known = {*api.labels, *api.taints, *api.missing}
    notes = [name for name in api.own if name not in known]
    found += [Change("update", "labels", name, "note which are ours") for name in notes]
    found += [Change("create", "node", name, "to be ready") for name in api.missing]
    return found


def _changes_of(node: NodePlan, plan: Plan) -> list[Change]:
    name = node.node.name
    found = [Change("create", "package", name, package) for package in node.packages]
    found += [Change("create", "programs", name, folder.rpartition("/")[2]) for folder in node.sets]
    shown = [file.path for file in node.write if not file.path.startswith(FOLDER)]
    if shown:
        found.append(Change("update", "files", name, _listed(shown)))
    if node.remove:
        found.append(Change("destroy", "files", name, _listed(list(node.remove))))
    for unit in node.starts:
        reason = node.reasons[unit.name]
        action = "create" if reason == "new" else "update"
        why = "" if reason == "new" else reason
        found.append(Change(action, "unit", name, unit.name.removesuffix(".service"), why))
    found += [Change("destroy", "unit", name, unit) for unit in node.stops]
    return found


def _listed(paths: list[str]) -> str:
    more = len(paths) - _SHOWN
    text = ", ".join(paths[:_SHOWN] if more > 0 else paths)
    return f"{text} and {more} more" if more > 0 else text
