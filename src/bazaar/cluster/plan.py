"""What has to be done to machines so that they are the cluster: pure, from facts to changes."""

from __future__ import annotations

from collections.abc import Mapping

from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.desired import Desired
from bazaar.cluster.facts import FOLDER, Facts, NodeFacts
from bazaar.cluster.parts import UNITS, Context, File, Unit
from bazaar.model.change import Change
from bazaar.model.record import field, record

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
    labels: Mapping[str, str] = field(default_factory=dict)  # node: labels, as kubectl has them
    missing: tuple[str, ...] = ()  # nodes that are not registered or not ready

    @property
    def empty(self) -> bool:
        return not (self.manifests or self.ranges or self.labels or self.missing)


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
        tuple(one.folder for one in sets if facts.sets.get(one.there) != one.manifest),
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
    if there.started == wanted.digest_of(unit):
        return ""
    changed = [
        path
        for path in (f"{UNITS}/{unit.name}", *unit.files)
        if path in wanted.files
        and facts.files.get(path) != (wanted.files[path].digest, wanted.files[path].mode)
    ]
    return f"{_listed(changed)} changed" if changed else "it runs with older files"


def plan_api(cluster: Cluster, facts: Mapping[str, Facts], manifests: str, digest: str) -> ApiPlan:
    """The API's objects, by what a control plane said of them."""
    seen = next((facts[n.name] for n in cluster.control_planes if facts[n.name].nodes), None)
    nodes: Mapping[str, NodeFacts] = seen.nodes if seen else {}
    applied = seen.addons if seen else ""
    ranges: dict[str, str] = {}
    labels: dict[str, str] = {}
    missing: list[str] = []
    for node in cluster.nodes:
        known = nodes.get(node.name)
        if known is None or not known.ready:
            missing.append(node.name)
        if known is None or known.pod_range != cluster.pod_range_of(node):
            ranges[node.name] = cluster.pod_range_of(node)
        wanted = cluster.labels_of(node)
        if known is None or any(known.labels.get(k) != v for k, v in wanted.items()):
            labels[node.name] = " ".join(f"{k}={v}" for k, v in wanted.items())
    return ApiPlan(
        digest,
        "" if applied == digest else manifests,
        ranges,
        {name: text for name, text in labels.items() if text},
        tuple(missing),
    )


def changes(plan: Plan) -> list[Change]:
    """The plan in lines, one for each thing done to one object."""
    found: list[Change] = []
    for node in plan.nodes:
        found += _changes_of(node, plan)
    api = plan.api
    if api.manifests:
        found.append(Change("update", "manifests", plan.cluster.name, "access, DNS, runtimes"))
    found += [Change("update", "pod range", name, text) for name, text in api.ranges.items()]
    found += [Change("update", "labels", name, text) for name, text in api.labels.items()]
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
