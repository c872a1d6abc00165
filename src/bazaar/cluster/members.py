"""etcd's members as units: on the control planes, or on machines of their own."""

from __future__ import annotations

from collections.abc import Iterator

from bazaar.cluster.parts import PKI, Context, File, Unit, flags, text, unit

ETCD = "/var/lib/etcd"
_ENVIRONMENT = "/etc/kubernetes/etcd-initial.env"
_LOCAL = "https://127.0.0.1"


def holds(context: Context) -> bool:
    """Whether this machine holds etcd."""
    return any(node.name == context.node.name for node in context.cluster.stores)


def servers(context: Context) -> str:
    """Where this control plane's API server finds etcd: beside it, else all members."""
    if holds(context):
        return f"{_LOCAL}:2379"
    return ",".join(f"https://{node.ip}:2379" for node in context.cluster.stores)


def units(context: Context) -> Iterator[Unit]:
    pki = tuple(f"{PKI}/etcd/{name}" for name in ("ca.crt", "server.crt", "peer.crt"))
    yield Unit("etcd.service", "etcd", pki)


def files(context: Context) -> Iterator[File]:
    """Its keys and its unit."""
    yield text(f"{PKI}/etcd/ca.crt", context.authority("etcd/ca"))
    for name in ("etcd/server", "etcd/peer", "etcd/healthcheck-client"):
        pair = context.pair(name)
        yield text(f"{PKI}/{name}.crt", pair["certificate"])
        yield text(f"{PKI}/{name}.key", pair["key"], 0o600)
    node, pki = context.node, f"{PKI}/etcd"
    values = {
        "name": node.name,
        "data-dir": ETCD,
        "listen-client-urls": f"{_LOCAL}:2379,https://{node.ip}:2379",
        "advertise-client-urls": f"https://{node.ip}:2379",
        "listen-peer-urls": f"https://{node.ip}:2380",
        "listen-metrics-urls": "http://127.0.0.1:2381",
        "client-cert-auth": "true",
        "trusted-ca-file": f"{pki}/ca.crt",
        "cert-file": f"{pki}/server.crt",
        "key-file": f"{pki}/server.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": f"{pki}/ca.crt",
        "peer-cert-file": f"{pki}/peer.crt",
        "peer-key-file": f"{pki}/peer.key",
        "tls-min-version": "TLS1.2",
    }
    yield unit(
        "etcd.service",
        "etcd, the store of Kubernetes",
        [context.program("etcd"), *flags(values, context, "etcd")],
        kind="notify",
        service=(f"EnvironmentFile=-{_ENVIRONMENT}", "TimeoutStartSec=120", "OOMScoreAdjust=-900"),
    )


def initial(context: Context) -> str:
    """A script that says what a member's first start needs to know.

    What a cluster has become since, its data says: no file of the plan holds this.
    """
    stores = context.cluster.stores
    joined = [*context.members, context.node.name] if context.members else []
    peers = [node for node in stores if not joined or node.name in joined]
    listed = ",".join(f"{node.name}=https://{node.ip}:2380" for node in peers)
    return (
        f"[ -d {ETCD}/member ] || (umask 077; cat >{_ENVIRONMENT}) <<'END'\n"
        f"ETCD_INITIAL_CLUSTER={listed}\n"
        f"ETCD_INITIAL_CLUSTER_STATE={'existing' if context.members else 'new'}\n"
        f"ETCD_INITIAL_CLUSTER_TOKEN={context.keys['identity']}\n"
        f"ETCD_INITIAL_ADVERTISE_PEER_URLS=https://{context.node.ip}:2380\n"
        "END"
    )
