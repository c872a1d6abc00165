"""What the CIS benchmark for Kubernetes asks for that is not so by default (`hardening: cis`).

Its numbers, those of kube-bench's cis-1.9 and later, stand beside each setting. Not done, since
it would break what it is to protect: AlwaysPullImages (add-ons' images are in no registry), an
etcd that is not root's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bazaar.cluster.description import Cluster
from bazaar.cluster.parts import UNITS, Context, File, yaml
from bazaar.model.record import replace

ADMISSION = "/etc/kubernetes/admission.yaml"
AUTHENTICATION = "/etc/kubernetes/authentication.yaml"
CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
)
# What root alone reads (1.1, 4.1).
_OWN = ("/etc/kubernetes/", "/etc/cni/", "/var/lib/kubelet/", "/var/lib/kube-proxy/", f"{UNITS}/")
_OPEN = ("/livez", "/readyz", "/healthz")  # what balancers ask, who are nobody
_PIDS = 4096


def asked(cluster: Cluster) -> bool:
    """Whether the profile was asked for."""
    return cluster.hardening == "cis"


def api_server(cluster: Cluster) -> dict[str, str]:
    """Flags of the API server."""
    if not asked(cluster):
        return {}
    return {
        "admission-control-config-file": ADMISSION,
        "authentication-config": AUTHENTICATION,  # 1.2.1
        "enable-admission-plugins": "NodeRestriction,EventRateLimit",  # 1.2.9
        "service-account-extend-token-expiration": "false",  # 1.2.30
        "tls-min-version": "VersionTLS12",
    }


def controller_manager(cluster: Cluster) -> dict[str, str]:
    """Flags of the controller manager."""
    return {"terminated-pod-gc-threshold": "1000"} if asked(cluster) else {}  # 1.3.1


def kubelet(cluster: Cluster) -> dict[str, Any]:
    """What kubelet's configuration says besides."""
    if not asked(cluster):
        return {}
    return {
        "eventRecordQPS": 5,  # 4.2.8
        "makeIPTablesUtilChains": True,  # 4.2.6
        "podPidsLimit": _PIDS,  # 4.2.13
        "seccompDefault": True,  # 4.2.14
        "streamingConnectionIdleTimeout": "5m0s",  # 4.2.5
        "tlsCipherSuites": CIPHERS.split(","),  # 4.2.12
    }


def files(context: Context) -> Iterator[File]:
    """What the API server's flags name."""
    if not asked(context.cluster):
        return
    conditions = [{"path": path} for path in _OPEN]
    yield yaml(
        AUTHENTICATION,
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "anonymous": {"enabled": True, "conditions": conditions},
        },
    )
    yield yaml(
        ADMISSION,
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [
                {"name": "EventRateLimit", "configuration": _event_rate()},
                {"name": "PodSecurity", "configuration": _pod_security()},
            ],
        },
    )


def settings(cluster: Cluster) -> tuple[str, ...]:
    """The paths of those files: another content needs another start."""
    return (ADMISSION, AUTHENTICATION) if asked(cluster) else ()


def _event_rate() -> Mapping[str, Any]:
    return {
        "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
        "kind": "Configuration",
        "limits": [
            {"type": "Server", "qps": 5000, "burst": 20000},
            {"type": "Namespace", "qps": 100, "burst": 1000, "cacheSize": 2000},
        ],
    }


def _pod_security() -> Mapping[str, Any]:
    """Pods ask for no more than usual ones do (5.2), but in the cluster's own namespace."""
    return {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "audit": "restricted", "warn": "restricted"},
        "exemptions": {"namespaces": ["kube-system"]},
    }


def tightened(cluster: Cluster, file: File) -> File:
    """The file as root alone may read it, where the profile was asked for."""
    if asked(cluster) and file.path.startswith(_OWN):
        return replace(file, mode=file.mode & 0o700)
    return file
