"""Objects of the API as our manifests have them, with the label by which they are found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bazaar.cluster.description import Node

LABEL = "app.kubernetes.io/managed-by"
OWNER = "bazaar"
NAMESPACE = "kube-system"
_GROUP = "rbac.authorization.k8s.io"


def made(
    version: str,
    kind: str,
    name: str,
    *,
    namespace: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One object."""
    metadata: dict[str, Any] = {"name": name, "labels": {LABEL: OWNER, **(labels or {})}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **(body or {})}


def binding(
    name: str, role: str, subject: Mapping[str, str], *, namespace: str = ""
) -> dict[str, Any]:
    """A role given to somebody: in a namespace a Role, else a ClusterRole."""
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    given = {"apiGroup": _GROUP, "kind": kind.removesuffix("Binding"), "name": role}
    body = {"roleRef": given, "subjects": [dict(subject)]}
    return made(f"{_GROUP}/v1", kind, name, namespace=namespace, body=body)


def named(kind: str, name: str) -> dict[str, str]:
    """A user or a group, as a binding's subject."""
    return {"apiGroup": _GROUP, "kind": kind, "name": name}


def endpoints(
    service: str, nodes: Sequence[Node], ports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The addresses of a Service that has no pods but machines behind it."""
    found = [
        {"addresses": [node.ip], "nodeName": node.name, "conditions": {"ready": True}}
        for node in nodes
    ]
    return made(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service}-bazaar",
        namespace=NAMESPACE,
        labels={
            "kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "bazaar",
        },
        body={"addressType": "IPv4", "endpoints": found, "ports": list(ports)},
    )
