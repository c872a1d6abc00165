"""A cluster's authorities and certificates: all issued here, before any machine is touched.

So every control plane can start at the same time, with no token and no upload between them.
The names are kubeadm's (https://kubernetes.io/docs/setup/best-practices/certificates/), with
one authority more: ``signer`` signs what is asked for inside the cluster, so that the key of
the cluster's own authority is on no machine.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from bazaar.cluster.description import Cluster, Node
from bazaar.model.record import record

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITIES = {
    "ca": "kubernetes-ca",
    "signer": "kubernetes-signer",
    "front-proxy-ca": "kubernetes-front-proxy-ca",
    "etcd/ca": "etcd-ca",
}
AUTHORITY_DAYS = 3650
DAYS = 365
RENEW_DAYS = 90  # before its end a certificate is issued anew
ADMINS = "kubeadm:cluster-admins"
_SKEW = datetime.timedelta(hours=1)  # for machines whose clocks are behind


@record
class Request:
    """A certificate that a machine, or whoever administers, is to have."""

    name: str  # as kubeadm's file, without its ending; unique with the node's name before it
    authority: str
    subject: str
    organisation: str = ""
    hosts: tuple[str, ...] = ()  # names and addresses
    server: bool = False
    client: bool = True

    @property
    def identity(self) -> str:
        """All that would make another certificate of it, as one line."""
        usage = f"{'s' if self.server else ''}{'c' if self.client else ''}"
        return "|".join([self.authority, self.subject, self.organisation, usage, *self.hosts])


def requests(cluster: Cluster, node: Node) -> Iterator[Request]:
    """What one machine needs."""
    if node in cluster.stores:
        yield from _store(node)
    if not node.etcd:
        yield from _node(node)
    if node.control_plane:
        yield from _plane(cluster, node)


def _store(node: Node) -> Iterator[Request]:
    """What a member of etcd needs, and who asks it from the same machine."""
    hosts = (node.name, "localhost", node.ip, "127.0.0.1")
    yield Request("etcd/server", "etcd/ca", node.name, "", hosts, server=True)
    yield Request("etcd/peer", "etcd/ca", node.name, "", hosts, server=True)
    yield Request("etcd/healthcheck-client", "etcd/ca", "kube-etcd-healthcheck-client")


def _node(node: Node) -> Iterator[Request]:
    ip, name = node.ip, node.name
    yield Request(
        "kubelet",
        "ca",
        f"system:node:{name}",
        "system:nodes",
        tuple(filter(None, (name, ip, node.address6))),
        server=True,
        client=False,
    )
    yield Request("kubelet-client", "ca", f"system:node:{name}", "system:nodes")
    yield Request("kube-proxy", "ca", "system:kube-proxy")
    yield Request("coredns", "ca", "system:coredns")


def _plane(cluster: Cluster, node: Node) -> Iterator[Request]:
    ip = node.ip
    yield Request("apiserver", "ca", "kube-apiserver", "", _api_hosts(cluster, node), True, False)
    yield Request("apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client")
    yield Request("front-proxy-client", "front-proxy-ca", "front-proxy-client")
    yield Request("apiserver-etcd-client", "etcd/ca", "kube-apiserver-etcd-client")
    metrics = ("metrics-server.kube-system.svc", ip)
    yield Request("metrics-server", "ca", "metrics-server", "", metrics, True, False)
    yield Request("metrics-server-client", "ca", "system:metrics-server")
    yield Request("controller-manager", "ca", "system:kube-controller-manager")
    yield Request("scheduler", "ca", "system:kube-scheduler")
    yield Request("super-admin", "ca", "kubernetes-super-admin", "system:masters")


ADMIN = Request("admin", "ca", "kubernetes-admin", ADMINS)


def _api_hosts(cluster: Cluster, node: Node) -> tuple[str, ...]:
    inside = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names = [node.name, *inside, f"kubernetes.default.svc.{cluster.domain}", "localhost"]
    places = [node.ip, node.machine.address, cluster.endpoint, cluster.api_ip, "127.0.0.1"]
    return tuple(dict.fromkeys([*names, *filter(None, places)]))


def renewed(held: Mapping[str, Any], cluster: Cluster, now: float) -> dict[str, Any]:
    """All that the cluster needs, from what is ``held`` where that serves still.

    Plain data, to be sealed: ``authorities`` and ``pairs`` by name, ``service_account`` and the
    ``encryption`` key of what etcd holds. ``held`` is not changed.
    """
    authorities: dict[str, Any] = dict(held.get("authorities", {}))
    for name, subject in AUTHORITIES.items():
        if name not in authorities:
            authorities[name] = authority(subject)
    pairs: dict[str, Any] = {}
    wanted = {f"{node.name}/{r.name}": r for node in cluster.nodes for r in requests(cluster, node)}
    wanted["/admin"] = ADMIN
    for name, request in wanted.items():
        pair = held.get("pairs", {}).get(name)
        if pair is None or not _serves(pair, request, now):
            pair = _issue(request, authorities[request.authority])
        pairs[name] = pair
    meshed: dict[str, Any] = {}
    if cluster.network == "wireguard":
        before = held.get("wireguard", {})
        meshed = {node.name: before.get(node.name) or _mesh_key() for node in cluster.members}
    return {
        "wireguard": meshed,
        "authorities": authorities,
        "pairs": pairs,
        "service_account": held.get("service_account") or _service_account(),
        "encryption": held.get("encryption") or _secret(),
        "identity": held.get("identity") or _secret()[:16],
    }


def _serves(pair: Mapping[str, Any], request: Request, now: float) -> bool:
    return pair["identity"] == request.identity and pair["until"] - now > RENEW_DAYS * 86400


def _mesh_key() -> dict[str, str]:
    """A key of WireGuard's: Curve25519, as `wg genkey` and `wg pubkey` write it."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    raw = (key.private_bytes_raw(), key.public_key().public_bytes_raw())
    private, public = (base64.b64encode(one).decode() for one in raw)
    return {"key": private, "public": public}


def _secret() -> str:
    import base64
    import os

    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization as to

    return key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()).decode()


def _service_account() -> dict[str, str]:
    from cryptography.hazmat.primitives import serialization as to

    key = _key()
    public = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
    return {"key": _pem(key), "public": public.decode()}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int
) -> tuple[x509.CertificateBuilder, datetime.datetime]:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    until = now + datetime.timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    return builder, until


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(subject: str, organisation: str = "") -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject)])


def trusted(authority: Mapping[str, Any]) -> str:
    """The certificates to believe in an authority's name: of the next or last one besides."""
    following = authority.get("next", {}).get("certificate", "")
    return f"{authority['certificate']}{following}{authority.get('previous', '')}"


def authority(subject: str) -> dict[str, Any]:
    """A new authority: its certificate, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    key, name = _key(), _name(subject)
    builder, until = _builder(name, name, key, AUTHORITY_DAYS)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(_usage(authority=True), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return {"certificate": pem, "key": _pem(key), "until": until.timestamp()}


def issued(request: Request, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A certificate for somebody who is no part of the cluster: it is kept by whoever asks."""
    return _issue(request, keys["authorities"][request.authority])


def _issue(request: Request, authority: Mapping[str, str]) -> dict[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    issuer, issuer_key = _loaded(authority["certificate"], authority["key"])
    key = _key()
    builder, until = _builder(
        _name(request.subject, request.organisation), issuer.subject, key, DAYS
    )
    uses = [Use.SERVER_AUTH] * request.server + [Use.CLIENT_AUTH] * request.client
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_usage(authority=False), True)
        .add_extension(x509.ExtendedKeyUsage(uses), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if request.hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in request.hosts])
        builder = builder.add_extension(names, False)
    certificate = builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return {
        "certificate": certificate,
        "key": _pem(key),
        "identity": request.identity,
        "until": until.timestamp(),
    }


@functools.lru_cache(maxsize=16)
def _loaded(certificate: str, key: str) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(certificate.encode()), private


def _host(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
