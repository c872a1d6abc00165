"""What the CIS Kubernetes Benchmark asks of flags, as a table: kube-bench's findings, by number.

Its checks of files are by kinds of files. What is a matter of policies inside the cluster
(chapter 5) is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bazaar.model.record import record

Test = Callable[[str | None], bool]  # the flag's value, None where it is not given


@record
class Rule:
    """One check of one flag."""

    number: str  # in the benchmark
    component: str
    flag: str
    test: Test
    said: str  # what is wrong where it fails
    remedy: str
    warning: bool = False  # not what everybody wants
    unless: str = ""  # another flag that settles it


def _is(*wanted: str | None) -> Test:
    return lambda value: value in wanted


def _set(value: str | None) -> bool:
    return bool(value)


def _unset(value: str | None) -> bool:
    return value is None


def _holds(*words: str) -> Test:
    return lambda value: all(word in (value or "").split(",") for word in words)


def _lacks(word: str) -> Test:
    return lambda value: word not in (value or "").split(",")


def _least(number: int) -> Test:
    return lambda value: (value or "").isdigit() and int(value or "0") >= number


_AGAIN = "`bazaar cluster apply` sets it again"
_CIS = "say `hardening: cis` of the cluster in its description, and apply"
_EXTRA = "take it out of the cluster's extra arguments, and apply"
_API = "kube-apiserver"
_MANAGER = "kube-controller-manager"
RULES = (
    Rule(
        "1.2.1",
        _API,
        "anonymous-auth",
        _is("false"),
        "anonymous requests are let in (RBAC lets them read health and version alone)",
        _CIS,
        warning=True,
        unless="authentication-config",  # it says what they may ask
    ),
    Rule("1.2.2", _API, "token-auth-file", _unset, "static tokens are let in", _EXTRA),
    Rule(
        "1.2.4", _API, "kubelet-client-certificate", _set, "kubelets are not shown who asks", _AGAIN
    ),
    Rule(
        "1.2.5", _API, "kubelet-certificate-authority", _set, "kubelets are believed unseen", _AGAIN
    ),
    Rule(
        "1.2.6",
        _API,
        "authorization-mode",
        _lacks("AlwaysAllow"),
        "anybody may do anything",
        _EXTRA,
    ),
    Rule(
        "1.2.7", _API, "authorization-mode", _holds("Node"), "kubelets may read all nodes'", _AGAIN
    ),
    Rule("1.2.8", _API, "authorization-mode", _holds("RBAC"), "roles do not count", _AGAIN),
    Rule(
        "1.2.9",
        _API,
        "enable-admission-plugins",
        _holds("EventRateLimit"),
        "events are not limited by rate",
        _CIS,
        warning=True,
    ),
    Rule(
        "1.2.10", _API, "enable-admission-plugins", _lacks("AlwaysAdmit"), "all is admitted", _EXTRA
    ),
    Rule(
        "1.2.14",
        _API,
        "enable-admission-plugins",
        _holds("NodeRestriction"),
        "a kubelet may change other nodes",
        _AGAIN,
    ),
    Rule("1.2.15", _API, "profiling", _is("false"), "profiling is on", _AGAIN),
    Rule(
        "1.2.16", _API, "audit-log-path", _set, "nothing is audited", "set audit: true, and apply"
    ),
    Rule("1.2.17", _API, "audit-log-maxage", _least(30), "audit logs are kept too short", _AGAIN),
    Rule("1.2.18", _API, "audit-log-maxbackup", _least(10), "too few audit logs are kept", _AGAIN),
    Rule("1.2.19", _API, "audit-log-maxsize", _least(100), "audit logs are kept too small", _AGAIN),
    Rule(
        "1.2.21", _API, "service-account-lookup", _is(None, "true"), "deleted tokens hold", _EXTRA
    ),
    Rule(
        "1.2.22", _API, "service-account-key-file", _set, "tokens have no key of their own", _AGAIN
    ),
    Rule("1.2.23", _API, "etcd-certfile", _set, "etcd is not shown who asks", _AGAIN),
    Rule(
        "1.2.24",
        _API,
        "tls-cert-file",
        _set,
        "it serves by a certificate of its own making",
        _AGAIN,
    ),
    Rule("1.2.25", _API, "client-ca-file", _set, "no client is known by certificate", _AGAIN),
    Rule("1.2.26", _API, "etcd-cafile", _set, "etcd is believed unseen", _AGAIN),
    Rule("1.2.27", _API, "encryption-provider-config", _set, "secrets are plain in etcd", _AGAIN),
    Rule("1.2.29", _API, "tls-cipher-suites", _set, "weak ciphers are taken", _AGAIN),
    Rule("1.3.2", _MANAGER, "profiling", _is("false"), "profiling is on", _AGAIN),
    Rule(
        "1.3.3",
        _MANAGER,
        "use-service-account-credentials",
        _is("true"),
        "all controllers share one account",
        _AGAIN,
    ),
    Rule(
        "1.3.4", _MANAGER, "service-account-private-key-file", _set, "tokens are unsigned", _AGAIN
    ),
    Rule("1.3.5", _MANAGER, "root-ca-file", _set, "pods cannot know the API server", _AGAIN),
    Rule("1.3.7", _MANAGER, "bind-address", _is("127.0.0.1"), "it listens to others", _AGAIN),
    Rule("1.4.1", "kube-scheduler", "profiling", _is("false"), "profiling is on", _AGAIN),
    Rule(
        "1.4.2", "kube-scheduler", "bind-address", _is("127.0.0.1"), "it listens to others", _AGAIN
    ),
    Rule("2.1", "etcd", "cert-file", _set, "it serves in the clear", _AGAIN),
    Rule("2.2", "etcd", "client-cert-auth", _is("true"), "anybody may read all", _AGAIN),
    Rule("2.3", "etcd", "auto-tls", _lacks("true"), "certificates of its own making", _EXTRA),
    Rule("2.4", "etcd", "peer-cert-file", _set, "members speak in the clear", _AGAIN),
    Rule("2.5", "etcd", "peer-client-cert-auth", _is("true"), "anybody may be a member", _AGAIN),
    Rule("2.6", "etcd", "peer-auto-tls", _lacks("true"), "certificates of its own making", _EXTRA),
    Rule("2.7", "etcd", "trusted-ca-file", _set, "no authority of its own", _AGAIN),
)


def _at(*path: str) -> Callable[[Mapping[str, Any]], Any]:
    def value(settings: Mapping[str, Any]) -> Any:
        found: Any = settings
        for word in path:
            found = found.get(word) if isinstance(found, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return found  # pyright: ignore[reportUnknownVariableType]

    return value


@record
class Setting:
    """One check of the kubelet's configuration."""

    number: str
    value: Callable[[Mapping[str, Any]], Any]
    test: Callable[[Any], bool]
    said: str
    remedy: str = _AGAIN
    warning: bool = False


SETTINGS = (
    Setting(
        "4.2.1",
        _at("authentication", "anonymous", "enabled"),
        lambda value: value is False,
        "anonymous requests are let in",
    ),
    Setting(
        "4.2.2", _at("authorization", "mode"), lambda value: value == "Webhook", "all may do all"
    ),
    Setting("4.2.3", _at("authentication", "x509", "clientCAFile"), bool, "no client is known"),
    Setting(
        "4.2.4", _at("readOnlyPort"), lambda value: value in (0, None), "its read-only port is open"
    ),
    Setting(
        "4.2.5",
        _at("streamingConnectionIdleTimeout"),
        lambda value: value not in (0, "0", "0s"),
        "idle streams are never closed",
    ),
    Setting(
        "4.2.6",
        _at("makeIPTablesUtilChains"),
        lambda value: value is not False,
        "it may not make its rules",
    ),
    Setting("4.2.9", _at("tlsCertFile"), bool, "it serves by a certificate of its own making"),
    Setting(
        "4.2.10",
        _at("rotateCertificates"),
        lambda value: value is not False,
        "it does not have its client certificate renewed",
    ),
    Setting(
        "4.2.12",
        _at("tlsMinVersion"),
        lambda value: value in ("VersionTLS12", "VersionTLS13"),
        "old versions of TLS are taken",
    ),
    Setting(
        "4.2.13",
        _at("podPidsLimit"),
        lambda value: isinstance(value, int) and value > 0,
        "a pod may take all process numbers",
        _CIS,
        warning=True,
    ),
)


@record
class Files:
    """One check of the files of a kind: their mode, and that they are root's."""

    pattern: str  # of the path; the first that fits holds
    most: int  # of the mode; what one may read, one may run or enter where it can be
    by_mode: str = ""  # the number of the check
    by_owner: str = ""


FILES = (
    Files("/etc/kubernetes/pki/*.key", 0o600, "1.1.21", "1.1.19"),
    Files("/etc/kubernetes/pki/*", 0o644, "1.1.20", "1.1.19"),
    Files("/etc/kubernetes/kubelet.conf", 0o600, "4.1.5", "4.1.6"),
    Files("/etc/kubernetes/*admin.conf", 0o600, "1.1.13", "1.1.14"),
    Files("/etc/kubernetes/scheduler.conf", 0o600, "1.1.15", "1.1.16"),
    Files("/etc/kubernetes/controller-manager.conf", 0o600, "1.1.17", "1.1.18"),
    Files("/etc/kubernetes/kube-proxy.conf", 0o600, "4.1.3", "4.1.4"),
    Files("/etc/kubernetes/*.conf", 0o600),
    Files("/etc/kubernetes/encryption.yaml", 0o600),
    Files("/var/lib/etcd", 0o700, "1.1.11", "1.1.12"),
    Files("/var/log/kubernetes", 0o700),
    Files("/var/lib/kubelet/config.yaml", 0o644, "4.1.9", "4.1.10"),
    Files("/etc/cni/net.d/*", 0o644, "1.1.9", "1.1.10"),
    Files("/etc/systemd/system/kubelet.service", 0o644, "4.1.1", "4.1.2"),
    Files("*", 0o644),
)
