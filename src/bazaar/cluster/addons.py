"""What the cluster itself is told, by manifests: who may do what, the DNS Service, runtimes.

Applied on a control plane by `kubectl apply --server-side`; what is no more among them is pruned
by its label.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bazaar.cluster import metrics, storage
from bazaar.cluster.description import Cluster, objects_of
from bazaar.cluster.objects import LABEL, NAMESPACE, OWNER, binding, endpoints, made, named
from bazaar.cluster.pki import ADMINS
from bazaar.model.record import record

MARK = "bazaar"  # the ConfigMap in kube-system that says what was applied, of which kinds


@record
class Given:
    """What a cluster has beside what its description says."""

    gvisor: bool
    extras: tuple[str, ...] = ()  # what is in the set of further programs
    authority: str = ""  # the certificate of the cluster's own


def manifests(cluster: Cluster, given: Given) -> list[dict[str, Any]]:
    """All objects of ours, without the mark."""
    found = [
        *_access(),
        *_dns(cluster),
    ]
    if storage.ARCHIVE in given.extras:
        found += storage.manifests()
    if metrics.PROGRAM in given.extras:
        found += metrics.manifests(cluster, given.authority)
    if given.gvisor:
        found.append(made("node.k8s.io/v1", "RuntimeClass", "gvisor", body={"handler": "runsc"}))
    return found


def document(cluster: Cluster, given: Given) -> tuple[str, str]:
    """The manifests as one YAML text, and its digest."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    objects = [*manifests(cluster, given), *_further(cluster)]
    text = yaml.dump_all(objects, Dumper=dumper, sort_keys=False)
    return text, hashlib.sha256(text.encode()).hexdigest()[:16]


def _further(cluster: Cluster) -> list[dict[str, Any]]:
    """The user's own objects, with the label by which they are found again."""
    found: list[dict[str, Any]] = []
    for one in (one for text in cluster.manifests.values() for one in objects_of(text)):
        metadata = one["metadata"]
        labels: dict[str, str] = {**(metadata.get("labels") or {}), LABEL: OWNER}
        found.append({**one, "metadata": {**metadata, "labels": labels}})
    return found


def kinds(text: str) -> list[str]:
    """The kinds among manifests, as kubectl takes them: KIND.VERSION.GROUP."""
    found: dict[str, None] = {}
    for one in objects_of(text):
        group, _, version = str(one["apiVersion"]).rpartition("/")
        found[f"{one['kind']}.{version}.{group}"] = None
    return sorted(found)


def identities(text: str) -> list[str]:
    """The objects among manifests, each as ``GROUP KIND NAMESPACE NAME``, ``-`` for none."""
    found: list[str] = []
    for one in objects_of(text):
        group = str(one["apiVersion"]).rpartition("/")[0] or "-"
        metadata = one["metadata"]
        # Without one it is of no namespace, or of kubectl's default: its kind would tell.
        named = metadata.get("namespace")
        for namespace in (named,) if named else ("-", "default"):
            found.append(f"{group} {one['kind']} {namespace} {metadata['name']}")
    return found


def _access() -> list[dict[str, Any]]:
    read = {"verbs": ["list", "watch"]}
    return [
        binding(ADMINS, "cluster-admin", named("Group", ADMINS)),
        binding(
            "bazaar:kubelet-api",
            "system:kubelet-api-admin",
            named("User", "kube-apiserver-kubelet-client"),
        ),
        made(
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
        binding("system:coredns", "system:coredns", named("User", "system:coredns")),
        # A kubelet may have its own client certificate signed anew, as kubeadm has it.
        binding(
            "bazaar:node-certificates",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            named("Group", "system:nodes"),
        ),
    ]


def _dns(cluster: Cluster) -> list[dict[str, Any]]:
    """`kube-dns`: each pod is sent to the CoreDNS of its own machine."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = made(
        "v1",
        "Service",
        "kube-dns",
        namespace=NAMESPACE,
        labels={"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
        body={
            "spec": {
                "clusterIP": cluster.dns_ip,
                "internalTrafficPolicy": "Local",
                "ports": [{**port, "targetPort": 53} for port in ports],
            }
        },
    )
    slices = endpoints("kube-dns", cluster.members, ports)
    return [service, slices]
