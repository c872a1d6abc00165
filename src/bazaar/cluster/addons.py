"""What the cluster itself is told, by manifests: who may do what, the DNS Service, runtimes.

Applied on a control plane by `kubectl apply --server-side`; what is no more among them is pruned
by its label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from bazaar.cluster.description import Cluster
from bazaar.cluster.pki import ADMINS

LABEL = "app.kubernetes.io/managed-by"
OWNER = "bazaar"
MARK = "bazaar"  # the ConfigMap in kube-system that says what was applied, of which kinds


def manifests(cluster: Cluster, *, gvisor: bool) -> list[dict[str, Any]]:
    """All objects, without the mark."""
    found = [
        *_access(),
        *_dns(cluster),
    ]
    if gvisor:
        found.append(_object("node.k8s.io/v1", "RuntimeClass", "gvisor", body={"handler": "runsc"}))
    return found


def document(cluster: Cluster, *, gvisor: bool) -> tuple[str, str]:
    """The manifests as one YAML text, and its digest."""
    from yaml import safe_dump_all

    objects = [*manifests(cluster, gvisor=gvisor), *_further(cluster)]
    text = safe_dump_all(objects, sort_keys=False)
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


def _further(cluster: Cluster) -> list[dict[str, Any]]:
    """The user's own objects, with the label by which they are found again."""
    from yaml import safe_load_all

    found: list[dict[str, Any]] = []
    for text in cluster.manifests.values():
        for one in safe_load_all(text):
            items = one.get("items", []) if one and one["kind"] == "List" else [one]
            for item in filter(None, items):
                metadata = item["metadata"]
                labels: dict[str, str] = {**(metadata.get("labels") or {}), LABEL: OWNER}
                found.append({**item, "metadata": {**metadata, "labels": labels}})
    return found


def kinds(text: str) -> list[str]:
    """The kinds among manifests, as kubectl takes them: KIND.VERSION.GROUP."""
    found: dict[str, None] = {}
    for one in _loaded(text):
        group, _, version = str(one["apiVersion"]).rpartition("/")
        found[f"{one['kind']}.{version}.{group}"] = None
    return sorted(found)


def identities(text: str) -> list[str]:
    """The objects among manifests, each as ``GROUP KIND NAMESPACE NAME``, ``-`` for none."""
    found: list[str] = []
    for one in _loaded(text):
        group = str(one["apiVersion"]).rpartition("/")[0] or "-"
        metadata = one["metadata"]
        # Without one it is of no namespace, or of kubectl's default: its kind would tell.
        named = metadata.get("namespace")
        for namespace in (named,) if named else ("-", "default"):
            found.append(f"{group} {one['kind']} {namespace} {metadata['name']}")
    return found


def _loaded(text: str) -> list[dict[str, Any]]:
    from yaml import safe_load_all

    return [one for one in safe_load_all(text) if one]


def _object(
    version: str,
    kind: str,
    name: str,
    *,
    namespace: str = "",
    labels: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {LABEL: OWNER, **(labels or {})}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **(body or {})}


def _binding(name: str, role: str, kind: str, subject: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return _object(
        f"{group}/v1",
        "ClusterRoleBinding",
        name,
        body={
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": kind, "name": subject}],
        },
    )


def _access() -> list[dict[str, Any]]:
    read = {"verbs": ["list", "watch"]}
    return [
        _binding(ADMINS, "cluster-admin", "Group", ADMINS),
        _binding(
            "bazaar:kubelet-api",
            "system:kubelet-api-admin",
            "User",
            "kube-apiserver-kubelet-client",
        ),
        _object(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "system:coredns",
            body={
                "rules": [
                    {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], **read},
                    {
                        "apiGroups": ["discovery.k8s.io"],
                        "resources": ["endpointslices"],
                        **read,
                    },
                ]
            },
        ),
        _binding("system:coredns", "system:coredns", "User", "system:coredns"),
    ]


def _dns(cluster: Cluster) -> list[dict[str, Any]]:
    """`kube-dns`: each pod is sent to the CoreDNS of its own machine."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = _object(
        "v1",
        "Service",
        "kube-dns",
        namespace="kube-system",
        labels={"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        body={
            "spec": {
                "clusterIP": cluster.dns_ip,
                "internalTrafficPolicy": "Local",
                "ports": [{**port, "targetPort": 53} for port in ports],
            }
        },
    )
    endpoints = [
        {"addresses": [node.ip], "nodeName": node.name, "conditions": {"ready": True}}
        for node in cluster.nodes
    ]
    slices = _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "kube-dns-bazaar",
        namespace="kube-system",
        labels={
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "bazaar",
        },
        body={"addressType": "IPv4", "endpoints": endpoints, "ports": ports},
    )
    return [service, slices]
