"""metrics-server, which `kubectl top` asks: a unit on each control plane, known to the API.

It is reached by a Service whose addresses are the control planes', with a certificate of the
cluster's own authority.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from bazaar.cluster.description import Cluster
from bazaar.cluster.objects import NAMESPACE, binding, endpoints, made
from bazaar.cluster.parts import PKI, Context, File, Unit, kubeconfig, text, unit

PROGRAM = "metrics-server"
PORT = 4443
USER = "system:metrics-server"
HOST = f"metrics-server.{NAMESPACE}.svc"
_CONF = "/etc/kubernetes/metrics-server.conf"
_UNIT = "metrics-server.service"


def files(context: Context) -> Iterator[File]:
    """Its keys and its unit."""
    if PROGRAM not in context.extras.has:
        return
    pair = context.pair("metrics-server")
    yield text(f"{PKI}/metrics-server.crt", pair["certificate"])
    yield text(f"{PKI}/metrics-server.key", pair["key"], 0o600)
    yield kubeconfig(context, "metrics-server-client", USER, _CONF)
    values = {
        "kubeconfig": _CONF,
        "authentication-kubeconfig": _CONF,
        "authorization-kubeconfig": _CONF,
        "bind-address": context.node.ip,
        "secure-port": str(PORT),
        "tls-cert-file": f"{PKI}/metrics-server.crt",
        "tls-private-key-file": f"{PKI}/metrics-server.key",
        "kubelet-certificate-authority": f"{PKI}/ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "metric-resolution": "15s",
        "profiling": "false",
    }
    words = [f"--{name}={value}" for name, value in values.items()]
    yield unit(
        _UNIT,
        "metrics-server, the figures of Kubernetes",
        [context.further(PROGRAM), *words],
        after="kube-apiserver.service",
        # Until the API knows what it may, it ends by itself.
        service=("RestartSec=3", "Nice=5"),
    )


def units(context: Context) -> Iterator[Unit]:
    if PROGRAM in context.extras.has:
        pki = tuple(f"{PKI}/{name}" for name in ("ca.crt", "metrics-server.crt"))
        yield Unit(_UNIT, "node", (_CONF, *pki))


def manifests(cluster: Cluster, authority: str) -> list[dict[str, Any]]:
    """Who may do what, and where it is. ``authority`` is the PEM of its certificate's."""
    group = "rbac.authorization.k8s.io/v1"
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}
    read = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": read},
    ]
    readers = [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": read}]
    roles = ("admin", "edit", "view")
    aggregated = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in roles}
    reader = "system:aggregated-metrics-reader"
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": PORT}]
    service = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode(authority.encode()).decode(),
        "service": {"name": "metrics-server", "namespace": NAMESPACE, "port": 443},
    }
    return [
        made(group, "ClusterRole", USER, body={"rules": rules}),
        binding(USER, USER, user),
        binding(f"{USER}:auth-delegator", "system:auth-delegator", user),
        binding(
            "metrics-server-auth-reader",
            "extension-apiserver-authentication-reader",
            user,
            namespace=NAMESPACE,
        ),
        made(group, "ClusterRole", reader, labels=aggregated, body={"rules": readers}),
        made(
            "v1", "Service", "metrics-server", namespace=NAMESPACE, body={"spec": {"ports": ports}}
        ),
        endpoints(
            "metrics-server",
            cluster.control_planes,
            [{"name": "https", "port": PORT, "protocol": "TCP"}],
        ),
        made(
            "apiregistration.k8s.io/v1",
            "APIService",
            "v1beta1.metrics.k8s.io",
            body={"spec": service},
        ),
    ]
