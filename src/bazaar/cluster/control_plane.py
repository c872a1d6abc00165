"""The control plane as systemd units: the API server, its controllers and the scheduler.

Flags are kubeadm's where it sets any, so that what is written about clusters is true of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bazaar.cluster import hardening, members, metrics
from bazaar.cluster.facts import ADMIN
from bazaar.cluster.parts import PKI, Context, File, Unit, flags, kubeconfig, text, unit, yaml

_KEPT = "30"  # audit logs: days, files


def files(context: Context) -> Iterator[File]:
    """All files of a control plane."""
    yield from _keys(context)
    yield from _configurations(context)
    yield _api_server(context)
    yield _controller_manager(context)
    yield _scheduler(context)
    yield from metrics.files(context)
    yield from hardening.files(context)


def units(context: Context) -> Iterator[Unit]:
    """The units, in the order of their start."""
    api_pki = tuple(
        f"{PKI}/{name}.crt"
        for name in (
            *("ca", "client-ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca"),
            *("front-proxy-client", "apiserver-etcd-client", "etcd/ca"),
        )
    )
    kubectl = f"{context.program('kubectl')} --kubeconfig {ADMIN} --request-timeout 2s"
    settings = tuple(f"/etc/kubernetes/{name}.yaml" for name in ("audit", "encryption"))
    yield Unit(
        "kube-apiserver.service",
        "control-plane",
        (*api_pki, *settings, *hardening.settings(context.cluster), f"{PKI}/sa.pub"),
        f"{kubectl} get --raw /readyz",
    )
    yield Unit(
        "kube-controller-manager.service",
        "control-plane",
        ("/etc/kubernetes/controller-manager.conf", f"{PKI}/signer.crt", f"{PKI}/ca.crt"),
    )
    yield Unit("kube-scheduler.service", "control-plane", ("/etc/kubernetes/scheduler.conf",))
    yield from metrics.units(context)


def _keys(context: Context) -> Iterator[File]:
    for name in ("ca", "front-proxy-ca", "etcd/ca"):
        yield text(f"{PKI}/{name}.crt", context.authority(name))
    yield text(f"{PKI}/signer.crt", context.signing("signer"))
    # Clients may show what either signed. The key of the cluster's own authority is nowhere here.
    yield text(f"{PKI}/client-ca.crt", context.authority("ca") + context.authority("signer"))
    yield text(f"{PKI}/signer.key", context.keys["authorities"]["signer"]["key"], 0o600)
    for name in (
        *("apiserver", "apiserver-kubelet-client", "front-proxy-client", "apiserver-etcd-client"),
    ):
        pair = context.pair(name)
        yield text(f"{PKI}/{name}.crt", pair["certificate"])
        yield text(f"{PKI}/{name}.key", pair["key"], 0o600)
    account = context.keys["service_account"]
    yield text(f"{PKI}/sa.pub", account["public"])
    yield text(f"{PKI}/sa.key", account["key"], 0o600)
    own = f"https://{context.node.ip}:{context.cluster.api_port}"
    for pair, user, path in (
        ("super-admin", "kubernetes-super-admin", ADMIN),
        ("controller-manager", "system:kube-controller-manager", _conf("controller-manager")),
        ("scheduler", "system:kube-scheduler", _conf("scheduler")),
    ):
        yield kubeconfig(context, pair, user, path, own)


def _conf(name: str) -> str:
    return f"/etc/kubernetes/{name}.conf"


def _configurations(context: Context) -> Iterator[File]:
    resources: dict[str, Any] = {
        "resources": ["secrets"],
        "providers": [
            {"secretbox": {"keys": [{"name": "key1", "secret": _secret(context)}]}},
            {"identity": {}},
        ],
    }
    yield yaml(
        "/etc/kubernetes/encryption.yaml",
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [resources],
        },
        0o600,
    )
    quiet = {"level": "None"}
    yield yaml(
        "/etc/kubernetes/audit.yaml",
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {**quiet, "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version"]},
                {**quiet, "verbs": ["get", "list", "watch"], "userGroups": ["system:nodes"]},
                {**quiet, "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
                # What they hold must not be in a log.
                {
                    "level": "Metadata",
                    "resources": [
                        {"group": "", "resources": ["secrets", "configmaps"]},
                        {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
                    ],
                },
                {"level": "Metadata", "verbs": ["get", "list", "watch"]},
                {"level": "Request"},
            ],
        },
    )


def _secret(context: Context) -> str:
    """The encryption key as standard base64, as the API server reads it."""
    import base64

    raw = base64.urlsafe_b64decode(context.keys["encryption"])
    return base64.b64encode(raw).decode()


def _api_server(context: Context) -> File:
    cluster = context.cluster
    values = {
        "advertise-address": context.node.ip,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{PKI}/client-ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "encryption-provider-config": "/etc/kubernetes/encryption.yaml",
        "etcd-cafile": f"{PKI}/etcd/ca.crt",
        "etcd-certfile": f"{PKI}/apiserver-etcd-client.crt",
        "etcd-keyfile": f"{PKI}/apiserver-etcd-client.key",
        "etcd-servers": members.servers(context),
        "kubelet-certificate-authority": f"{PKI}/ca.crt",
        "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "profiling": "false",
        "proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
        "proxy-client-key-file": f"{PKI}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": str(cluster.api_port),
        "service-account-issuer": f"https://kubernetes.default.svc.{cluster.domain}",
        "service-account-key-file": f"{PKI}/sa.pub",
        "service-account-signing-key-file": f"{PKI}/sa.key",
        "service-cluster-ip-range": cluster.service_range,
        # Without it, open watches hold its end up for a minute.
        "shutdown-watch-termination-grace-period": "2s",
        "tls-cert-file": f"{PKI}/apiserver.crt",
        "tls-private-key-file": f"{PKI}/apiserver.key",
        "tls-cipher-suites": hardening.CIPHERS,
    }
    values |= hardening.api_server(cluster)
    if cluster.audit:
        values |= {
            "audit-policy-file": "/etc/kubernetes/audit.yaml",
            "audit-log-path": "/var/log/kubernetes/audit.log",
            "audit-log-maxage": _KEPT,
            "audit-log-maxbackup": "10",
            "audit-log-maxsize": "100",
        }
    return unit(
        "kube-apiserver.service",
        "The API server of Kubernetes",
        [context.program("kube-apiserver"), *flags(values, context, "kube-apiserver")],
        after="etcd.service",
        kind="notify",
        # Ended, it lets requests that are under way come to their end.
        service=(
            *("TimeoutStartSec=120", "TimeoutStopSec=20"),
            *("LogsDirectory=kubernetes", "LogsDirectoryMode=0700"),
        ),
    )


def _controller_manager(context: Context) -> File:
    conf = _conf("controller-manager")
    values = {
        "allocate-node-cidrs": "false",  # each machine's is known before it is a node
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{PKI}/client-ca.crt",
        "cluster-name": context.cluster.name,
        "cluster-signing-cert-file": f"{PKI}/signer.crt",
        "cluster-signing-key-file": f"{PKI}/signer.key",
        "controllers": "*,bootstrapsigner,tokencleaner",
        "kubeconfig": conf,
        "leader-elect": "true",
        "profiling": "false",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "root-ca-file": f"{PKI}/ca.crt",
        "service-account-private-key-file": f"{PKI}/sa.key",
        "use-service-account-credentials": "true",
        **hardening.controller_manager(context.cluster),
    }
    return unit(
        "kube-controller-manager.service",
        "The controllers of Kubernetes",
        [
            context.program("kube-controller-manager"),
            *flags(values, context, "kube-controller-manager"),
        ],
        after="kube-apiserver.service",
    )


def _scheduler(context: Context) -> File:
    conf = _conf("scheduler")
    values = {
        "authentication-kubeconfig": conf,
        "authorization-kubeconfig": conf,
        "bind-address": "127.0.0.1",
        "kubeconfig": conf,
        "leader-elect": "true",
        "profiling": "false",
    }
    return unit(
        "kube-scheduler.service",
        "The scheduler of Kubernetes",
        [context.program("kube-scheduler"), *flags(values, context, "kube-scheduler")],
        after="kube-apiserver.service",
    )
