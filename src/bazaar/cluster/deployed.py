"""Bringing the services of a bazaar into a cluster, and seeing how they are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bazaar.cluster.client import Access, Client, listing, place
from bazaar.cluster.objects import LABEL, OWNER
from bazaar.cluster.objects import made as made_object
from bazaar.cluster.workloads import (
    BAZAAR,
    CLAIM,
    DIGEST,
    GRACE,
    KINDS,
    LINGER,
    SERVICE,
    Made,
    Workload,
    claims,
    namespace,
    objects,
    reader,
    settled,
)
from bazaar.errors import ClusterError
from bazaar.model.record import record

Progress = Callable[[str], None]
PATIENCE = 60.0  # seconds a pod has besides its service's own start period
_REVISION = "deployment.kubernetes.io/revision"
_HOPELESS = 2  # restarts: the cluster's pauses between them are 10 s, 20 s, 40 s …
_NEVER = ("Image", "StartError", "ConfigError")  # in reasons that no waiting mends
_LAST = 3  # lines of a log that explain a failure


@record
class Pod:
    """A replica on a cluster, as its API tells."""

    name: str
    service: str
    node: str
    address: str  # its own
    ready: bool
    leaving: bool  # it was told to end
    own_kernel: bool
    start_ms: float | None = None  # from its making until it was ready; the API tells seconds
    restarts: int = 0
    problem: str = ""


@record
class Seen:
    """What a bazaar's supervisor needs to know of a cluster, to balance over it."""

    access: Access
    hosts: Mapping[str, str]  # the addresses of all machines, as seen from here, by their names
    ports: Mapping[str, int]  # of each of them, by the service that it leads to
    edges: Sequence[str] = ()  # the addresses of those that the world is let in by


@record
class Found:
    """What a cluster has of a bazaar."""

    objects: Mapping[str, Mapping[str, Any]]  # by service, by path, as they are now
    volumes: frozenset[str]


def look(client: Client, bazaar: str) -> Found:
    """What is there now; nothing at all where the namespace is not there or leaves."""
    objects: dict[str, dict[str, Any]] = {}
    selector = f"{LABEL}={OWNER},{BAZAAR}={bazaar}"
    for version, kind in KINDS:
        listed = client.get(listing(version, kind, bazaar), labelSelector=selector) or {}
        for one in listed.get("items", []):
            metadata = one["metadata"]
            if "deletionTimestamp" in metadata or SERVICE not in metadata["labels"]:
                continue
            path = place({"apiVersion": version, "kind": kind, "metadata": metadata})
            objects.setdefault(metadata["labels"][SERVICE], {})[path] = one
    listed = client.get(listing(*CLAIM, bazaar), labelSelector=selector) or {}
    volumes = frozenset(one["metadata"]["name"] for one in listed.get("items", []))
    return Found(objects, volumes)


def difference(client: Client, workload: Workload, found: Found) -> str:
    """What of a service is not as wanted, in a few words; "" where all is."""
    there = found.objects.get(workload.name, {})
    wanted = {place(one): one for one in objects(workload)}
    if digests(there) != digests(wanted):
        missing = [wanted[path]["kind"] for path in wanted if path not in there]
        return f"{', '.join(missing)} not there" if missing else "description"
    changed = [one["kind"] for path, one in wanted.items() if _drifted(client, one, there[path])]
    return f"{', '.join(changed)} changed by others" if changed else ""


def digests(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What each object was made of, by path."""
    return {
        path: one["metadata"].get("annotations", {}).get(DIGEST, "") for path, one in found.items()
    }


def _drifted(client: Client, wanted: dict[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether applying an object again would change it: the API itself is asked."""
    made = Made("")
    if wanted["kind"] == "Deployment":
        container = there["spec"]["template"]["spec"]["containers"][0]
        who = container.get("securityContext", {})
        user = (who["runAsUser"], who["runAsGroup"]) if "runAsUser" in who else None
        made = Made(container["image"], user)
    after = client.apply(place(wanted), settled(wanted, made), try_only=True)
    return any(after.get(key) != there.get(key) for key in ("spec", "data", "type"))


def prepare(client: Client, bazaar: str, user: str) -> None:
    """The namespace, and what lets the bazaar's supervisor see its pods."""
    for one in [namespace(bazaar), *reader(bazaar, user)]:
        client.apply(place(one), one)


def bring(
    client: Client, workload: Workload, settling: Made, found: Found, progress: Progress
) -> str | None:
    """Make a service as it is wanted, of what is there; None, or why it is not healthy.

    What it was before serves until the new one is ready; a change that fails is taken back.
    """
    wanted = objects(workload)
    for one in claims(workload):
        if one["metadata"]["name"] not in found.volumes:
            client.apply(place(one), one)
    for one in wanted:
        client.apply(place(one), settled(one, settling))
    # Only now: what was part of it before may be in use until then.
    for path in found.objects.get(workload.name, {}).keys() - {place(one) for one in wanted}:
        client.delete(path)
    problem = _settled(client, workload, progress)
    if problem is None or not _taken_back(client, workload, found):
        return problem
    again = _settled(client, workload, progress)
    outcome = f"does not run again yet: {again}" if again else "runs again"
    return f"{problem}\n        the change is taken back, and what ran before {outcome}"


def _taken_back(client: Client, workload: Workload, found: Found) -> bool:
    """Give pods the template they had before, as `kubectl rollout undo`; whether there is one."""
    (wanted,) = (one for one in objects(workload) if one["kind"] == "Deployment")
    path = place(wanted)
    before = found.objects.get(workload.name, {}).get(path)
    now = client.get(path)
    if before is None or now is None:
        return False
    earlier, newest = (_replica_set(client, workload, one) for one in (before, now))
    if not earlier or not newest or earlier["metadata"]["name"] == newest["metadata"]["name"]:
        return False
    template = earlier["spec"]["template"]
    template["metadata"]["labels"].pop("pod-template-hash", None)
    template["metadata"].pop("creationTimestamp", None)
    wanted["spec"]["template"] = template
    wanted["metadata"]["annotations"] = {DIGEST: "taken back"}  # the change is still to be made
    client.apply(path, wanted)
    return True


def _settled(client: Client, workload: Workload, progress: Progress) -> str | None:
    path = listing("apps/v1", "Deployment", workload.bazaar) + f"/{workload.name}"
    deadline = time.monotonic() + workload.health.start_period + PATIENCE
    progress(f"{client.cluster}: waiting for {workload.name}")
    while True:
        now = client.get(path) or {}
        status, metadata = now.get("status", {}), now.get("metadata", {})
        seen = status.get("observedGeneration", 0) >= metadata.get("generation", 1)
        counts = [status.get(key, 0) for key in ("updatedReplicas", "availableReplicas")]
        whole = [*counts, status.get("replicas", 0)] == [workload.replicas] * 3
        if seen and whole:
            return None
        late = time.monotonic() > deadline
        if seen and (why := _failure(client, workload, now, late=late)):
            return why
        if late:
            return "not healthy in time"
        time.sleep(0.2)


def _failure(
    client: Client, workload: Workload, deployment: Mapping[str, Any], *, late: bool
) -> str:
    """Why new pods of a service are not ready; until it is ``late``, what no waiting mends."""
    newest = _replica_set(client, workload, deployment)
    for pod in pods(client, workload.bazaar, workload.name):
        if not newest or not pod.name.startswith(f"{newest['metadata']['name']}-"):
            continue  # of an earlier version, which may have failed
        lost = pod.restarts >= _HOPELESS or any(word in pod.problem for word in _NEVER)
        if pod.problem and not pod.ready and (lost or late):
            return f"{pod.name} on {pod.node or 'no machine'}: {pod.problem}" + _words(
                client, workload.bazaar, pod.name
            )
    return ""


def _replica_set(
    client: Client, workload: Workload, deployment: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The ReplicaSet of a Deployment as it was when it was looked at; None where there is none."""
    revision = deployment["metadata"].get("annotations", {}).get(_REVISION)
    selector = f"{BAZAAR}={workload.bazaar},{SERVICE}={workload.name}"
    path = listing("apps/v1", "ReplicaSet", workload.bazaar)
    for one in (client.get(path, labelSelector=selector) or {}).get("items", []):
        if one["metadata"].get("annotations", {}).get(_REVISION) == revision:
            return one
    return None


def _words(client: Client, bazaar: str, pod: str) -> str:
    """The end of a pod's log, so that a failed start explains itself."""
    path = f"{listing('v1', 'Pod', bazaar)}/{pod}/log"
    for previous in ("false", "true"):
        try:
            lines = client.text(path, previous=previous, tailLines=str(_LAST)).splitlines()
        except ClusterError:
            continue
        if lines:
            return "".join(f"\n        | {line}" for line in lines)
    return ""


def ports(client: Client, bazaar: str) -> dict[str, int]:
    """The port of every machine that leads to a service, by service."""
    selector = f"{LABEL}={OWNER},{BAZAAR}={bazaar}"
    listed = client.get(listing("v1", "Service", bazaar), labelSelector=selector) or {}
    return {
        one["metadata"]["labels"][SERVICE]: int(one["spec"]["ports"][0]["nodePort"])
        for one in listed.get("items", [])
    }


def edges(client: Client, bazaar: str) -> dict[str, str]:
    """The machines that are edges of a bazaar, each with the digest of what it is."""
    found = client.get(place(_edges(bazaar, {}))) or {}
    return dict(found.get("data") or {})


def note_edges(
    client: Client, bazaar: str, digests: Mapping[str, str], addresses: Sequence[str]
) -> None:
    """Keep which machines are edges, and tell the Services that these let the world in."""
    wanted = _edges(bazaar, digests)
    client.apply(place(wanted), wanted)
    ingress = [{"ip": address} for address in addresses]
    selector = f"{LABEL}={OWNER},{BAZAAR}={bazaar}"
    listed = client.get(listing("v1", "Service", bazaar), labelSelector=selector) or {}
    for one in listed.get("items", []):
        told = one.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        same = [each.get("ip") for each in told] == list(addresses)
        if one["spec"]["type"] == "LoadBalancer" and not same:
            path = f"{listing('v1', 'Service', bazaar)}/{one['metadata']['name']}/status"
            client.merge(path, {"status": {"loadBalancer": {"ingress": ingress}}})


def _edges(bazaar: str, digests: Mapping[str, str]) -> dict[str, Any]:
    body = {"data": dict(digests)}
    return made_object(
        "v1", "ConfigMap", "bazaar-edges", namespace=bazaar, labels={BAZAAR: bazaar}, body=body
    )


def pods(client: Client, bazaar: str, service: str = "") -> list[Pod]:
    """The pods of a bazaar, or of a service of it, that did not end."""
    selector = f"{BAZAAR}={bazaar}" + (f",{SERVICE}={service}" if service else "")
    listed = client.get(listing("v1", "Pod", bazaar), labelSelector=selector) or {}
    found = [_pod(one) for one in listed.get("items", []) if _lives(one)]
    return sorted(found, key=lambda pod: (pod.service, pod.node, pod.name))


def _lives(one: Mapping[str, Any]) -> bool:
    return one["status"].get("phase") not in ("Succeeded", "Failed")


def _pod(one: Mapping[str, Any]) -> Pod:
    metadata, spec, status = one["metadata"], one["spec"], one["status"]
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    ready = conditions.get("Ready", {})
    containers = status.get("containerStatuses", [])
    took: float | None = None
    if ready.get("status") == "True":
        took = 1000 * (_time(ready["lastTransitionTime"]) - _time(metadata["creationTimestamp"]))
    return Pod(
        name=metadata["name"],
        service=metadata["labels"].get(SERVICE, ""),
        node=spec.get("nodeName", ""),
        address=status.get("podIP", ""),
        ready=ready.get("status") == "True",
        leaving="deletionTimestamp" in metadata,
        own_kernel=spec.get("runtimeClassName") == "gvisor",
        start_ms=took,
        restarts=sum(int(each.get("restartCount", 0)) for each in containers),
        problem=_problem(conditions, containers),
    )


def _problem(conditions: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> str:
    """Why it is not ready, in the API's own words; "" where it is."""
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    for each in containers:
        waiting = each.get("state", {}).get("waiting", {})
        ended = each.get("lastState", {}).get("terminated") or each["state"].get("terminated")
        if ended:
            reason = ended.get("reason", "")
            said = "" if reason in ("Error", "Completed", "") else f" ({reason})"
            return f"it ended with exit code {ended.get('exitCode')}{said}"
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            return ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
    return "it does not answer its health check yet" if containers else ""


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def remove(client: Client, bazaar: str, *, volumes: bool, progress: Progress) -> frozenset[str]:
    """Take a bazaar out of a cluster, with its volumes where asked; those that are kept.

    Returns once no pod is left, so that nothing goes on behind the caller's back.
    """
    found = look(client, bazaar)
    whole = place(namespace(bazaar))
    if volumes or not found.volumes:
        client.delete(whole)
        _gone(client, bazaar, lambda: client.get(whole) is None, progress)
        return frozenset()
    for service in found.objects:
        drop(client, found, service)
    _gone(client, bazaar, lambda: True, progress)
    return found.volumes


def drop(client: Client, found: Found, service: str) -> None:
    """Take one service out of a cluster; volumes stay."""
    for path in found.objects.get(service, {}):
        client.delete(path)


def _gone(client: Client, bazaar: str, too: Callable[[], bool], progress: Progress) -> None:
    """Wait until no pod of it is left, and what is asked for is so, ``too``."""
    deadline = time.monotonic() + LINGER + GRACE + PATIENCE
    while True:
        left = [pod.name for pod in pods(client, bazaar)]
        if not left and too():
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster {client.cluster}: the namespace {bazaar} is not empty yet: "
                + (", ".join(left) or "it is being deleted"),
                hint="run the same again; `bazaar cluster shell` with kubectl shows what waits",
            )
        progress(f"{client.cluster}: {len(left)} pods leave")
        time.sleep(0.2)
