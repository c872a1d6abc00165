"""A service of a bazaar as objects of a cluster: pure, from what is wanted to manifests.

One namespace for each bazaar, named as it is. Names and labels are those Kubernetes recommends:
https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from bazaar.cluster.objects import made
from bazaar.model.container import Limits
from bazaar.model.record import field, record
from bazaar.model.site import Health

SERVICE, BAZAAR = "app.kubernetes.io/name", "app.kubernetes.io/part-of"
DIGEST, USER = "bazaar.local/digest", "bazaar.local/user"
# Of what a service is made; volumes' claims apart, which outlive services.
KINDS = (
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
)
CLAIM = ("v1", "PersistentVolumeClaim")
# A pod that is to go serves on while balancers hear of it, then has as long as docker gives it.
CLASS = "bazaar.local/edges"  # of load balancers
LINGER, GRACE = 5, 10  # seconds
_SIZE = "1Gi"  # asked for a volume: descriptions say none


@record
class Claim:
    """Data of a service that outlives its pods."""

    name: str
    target: str
    read_only: bool = False


@record
class Workload:
    """A service as a cluster is to run it."""

    bazaar: str
    name: str
    image: str  # as the description names it
    replicas: int = 1
    own_kernel: bool = True
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    port: int | None = None
    health: Health = Health("none")
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()  # variable and value
    claims: tuple[Claim, ...] = ()
    files: tuple[tuple[str, str], ...] = ()  # target and text
    limits: Limits = field(default_factory=Limits)
    working_directory: str = ""
    user: str = ""  # as the description names who it runs as
    alone: bool = False  # two of it must not run at the same time
    published: bool = False  # at the edges


@record
class Made:
    """What the description only names, as it is on the machines."""

    image: str  # by which pods name it
    user: tuple[int, int] | None = None  # uid and gid


def namespace(bazaar: str) -> dict[str, Any]:
    """The namespace of a bazaar."""
    return made("v1", "Namespace", bazaar, labels={BAZAAR: bazaar})


def reader(bazaar: str, user: str) -> list[dict[str, Any]]:
    """What lets a bazaar's supervisor see its pods, and nothing else."""
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    labels = {BAZAAR: bazaar}
    role = {"apiGroup": group, "kind": "Role", "name": "bazaar-supervisor"}
    subject = {"apiGroup": group, "kind": "User", "name": user}
    return [
        made(
            f"{group}/v1",
            "Role",
            "bazaar-supervisor",
            namespace=bazaar,
            labels=labels,
            body={"rules": [rule]},
        ),
        made(
            f"{group}/v1",
            "RoleBinding",
            "bazaar-supervisor",
            namespace=bazaar,
            labels=labels,
            body={"roleRef": role, "subjects": [subject]},
        ),
    ]


def claims(workload: Workload) -> list[dict[str, Any]]:
    """The volumes' claims: of the cluster's default StorageClass."""
    return [
        made(
            *CLAIM,
            claim.name,
            namespace=workload.bazaar,
            labels={BAZAAR: workload.bazaar},
            body={
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": _SIZE}},
                }
            },
        )
        for claim in workload.claims
    ]


def objects(workload: Workload) -> list[dict[str, Any]]:
    """All of a service but its volumes; each with a digest of the whole, by which it is known."""
    found: list[dict[str, Any]] = []
    data = {name: base64.b64encode(value.encode()).decode() for name, value in workload.secrets}
    if data:
        found.append(_made(workload, "v1", "Secret", {"type": "Opaque", "data": data}, "-secrets"))
    if workload.files:
        texts = {str(number): text for number, (_, text) in enumerate(workload.files)}
        found.append(_made(workload, "v1", "ConfigMap", {"data": texts}, "-files"))
    found.append(_made(workload, "apps/v1", "Deployment", {"spec": _deployment(workload)}))
    if workload.port is not None:
        found += [_service(workload, workload.port), _policy(workload, workload.port)]
    if workload.replicas > 1 and not workload.alone:
        found.append(_budget(workload))
    digest = digest_of(found)
    for one in found:
        one["metadata"]["annotations"] = {DIGEST: digest}
    return found


def settled(one: dict[str, Any], made: Made) -> dict[str, Any]:
    """An object of `objects` with what is known on the machines alone."""
    if one["kind"] == "Deployment":
        pod = one["spec"]["template"]["spec"]
        container = pod["containers"][0]
        container["image"] = made.image
        if made.user is not None:
            uid, gid = made.user
            container["securityContext"] = {"runAsUser": uid, "runAsGroup": gid}
            # Else a fresh volume would be root's alone.
            pod["securityContext"] = {"fsGroup": gid}
    return one


def digest_of(found: list[dict[str, Any]]) -> str:
    """One digest of objects."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _labels(workload: Workload) -> dict[str, str]:
    return {SERVICE: workload.name, BAZAAR: workload.bazaar}


def _made(
    workload: Workload, version: str, kind: str, body: Mapping[str, Any], suffix: str = ""
) -> dict[str, Any]:
    return made(
        version,
        kind,
        f"{workload.name}{suffix}",
        namespace=workload.bazaar,
        labels=_labels(workload),
        body=body,
    )


def _deployment(workload: Workload) -> dict[str, Any]:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    # Pods do not see a changed Secret or ConfigMap in their environment: new ones do.
    around = hashlib.sha256(json.dumps([workload.secrets, workload.files]).encode()).hexdigest()
    spec: dict[str, Any] = {
        "containers": [_container(workload)],
        "terminationGracePeriodSeconds": LINGER + GRACE if workload.port else GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(workload)},
            }
        ],
        "volumes": _volumes(workload),
    }
    if workload.own_kernel:
        spec["runtimeClassName"] = "gvisor"
    return {
        "replicas": workload.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": _labels(workload)},
        "strategy": {"type": "Recreate"} if workload.alone else rolling,
        "template": {
            "metadata": {
                "labels": _labels(workload),
                "annotations": {DIGEST: around[:16], USER: workload.user},
            },
            "spec": spec,
        },
    }


def _container(workload: Workload) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in workload.environment
    ]
    for name, _ in workload.secrets:
        source = {"name": f"{workload.name}-secrets", "key": name}
        environment.append({"name": name, "valueFrom": {"secretKeyRef": source}})
    container: dict[str, Any] = {
        "name": workload.name,
        "image": workload.image,
        "imagePullPolicy": "IfNotPresent",
        "env": environment,
        "volumeMounts": _mounts(workload),
        **_probes(workload),
    }
    if workload.entrypoint:
        container["command"] = list(workload.entrypoint)
    if workload.command:
        container["args"] = list(workload.command)
    if workload.working_directory:
        container["workingDir"] = workload.working_directory
    if workload.port is not None:
        container["ports"] = [{"containerPort": workload.port, "protocol": "TCP"}]
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": LINGER}}}
    if limits := _limits(workload.limits):
        container["resources"] = limits
    return container


def _limits(limits: Limits) -> dict[str, Any]:
    """What may be used at most. Only memory is set aside: cores are shared where all want them."""
    most: dict[str, str] = {}
    if limits.memory is not None:
        most["memory"] = str(limits.memory)
    if limits.cpus is not None:
        most["cpu"] = f"{max(1, round(limits.cpus * 1000))}m"
    if not most:
        return {}
    return {"limits": most, "requests": {**most, "cpu": "10m"}}


def _probes(workload: Workload) -> dict[str, Any]:
    health = workload.health
    if workload.port is None or health.kind == "none":
        return {}
    if health.kind == "http":
        action: dict[str, Any] = {"httpGet": {"path": health.path, "port": workload.port}}
    else:
        action = {"tcpSocket": {"port": workload.port}}
    # The API counts whole seconds.
    timeout = max(1, math.ceil(health.timeout))
    ready = {"periodSeconds": max(1, math.ceil(health.interval)), "failureThreshold": 2}
    return {"readinessProbe": {**action, **ready, "timeoutSeconds": timeout}}


def _volumes(workload: Workload) -> list[dict[str, Any]]:
    names = dict.fromkeys(claim.name for claim in workload.claims)
    found: list[dict[str, Any]] = [
        {"name": f"volume-{name}", "persistentVolumeClaim": {"claimName": name}} for name in names
    ]
    if workload.files:
        found.append({"name": "files", "configMap": {"name": f"{workload.name}-files"}})
    return found


def _mounts(workload: Workload) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": f"volume-{claim.name}",
            "mountPath": claim.target,
            "readOnly": claim.read_only,
        }
        for claim in workload.claims
    ]
    found += [
        {"name": "files", "mountPath": target, "subPath": str(number), "readOnly": True}
        for number, (target, _) in enumerate(workload.files)
    ]
    return found


def _service(workload: Workload, port: int) -> dict[str, Any]:
    """A port of every machine that leads to the pods on it alone: balancers see who has some."""
    spec: dict[str, Any] = {
        "type": "NodePort",
        "externalTrafficPolicy": "Local",
        "selector": _labels(workload),
        "ports": [{"port": port, "targetPort": port, "protocol": "TCP"}],
    }
    if workload.published:
        spec |= {"type": "LoadBalancer", "loadBalancerClass": CLASS}
    return _made(workload, "v1", "Service", {"spec": spec})


def _policy(workload: Workload, port: int) -> dict[str, Any]:
    """Nobody reaches anything of a service but its port, where the network enforces it."""
    spec = {
        "podSelector": {"matchLabels": _labels(workload)},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"}]}],
    }
    return _made(workload, "networking.k8s.io/v1", "NetworkPolicy", {"spec": spec})


def _budget(workload: Workload) -> dict[str, Any]:
    """A machine that is drained, as for an upgrade, takes one pod after the other."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _labels(workload)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",  # what does not work holds up nobody
    }
    return _made(workload, "policy/v1", "PodDisruptionBudget", {"spec": spec})
