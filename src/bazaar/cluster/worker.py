"""What every machine of a cluster runs: containerd, kubelet, kube-proxy, DNS and a balancer.

CoreDNS is a unit on every machine; the Service `kube-dns` sends a pod to the one beside it, so
that a name is found as long as the pod's own machine is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bazaar.cluster import hardening, outside, storage
from bazaar.cluster.facts import FOLDER
from bazaar.cluster.parts import (
    BALANCER_PORT,
    PKI,
    Context,
    File,
    Unit,
    flags,
    kubeconfig,
    text,
    unit,
    yaml,
)

PAUSE = "bazaar.local/pause:1"
CNI_PROGRAMS = f"{FOLDER}/cni"  # a link: another version is no reason to start containerd again
KUBELET = "/var/lib/kubelet/config.yaml"
_KUBECONFIG = "/etc/kubernetes/kubelet.conf"
_ROTATED = "/var/lib/kubelet/pki/kubelet-client-current.pem"  # kubelet's own name
_CONTAINERD = "/etc/containerd/config.toml"
_DROPIN = "/etc/systemd/system/containerd.service.d/bazaar.conf"
_SOCKET = "unix:///run/containerd/containerd.sock"
_CAP_SYS_RESOURCE = 24  # capability.h
_OVERLAYS = ("overlayfs", "overlay", "aufs")


def files(context: Context) -> Iterator[File]:
    """All files of a node that are not its network's."""
    yield from _containerd(context)
    yield from outside.files(context)
    yield from storage.files(context)
    yield from _kubelet(context)
    yield from _proxy(context)
    yield from _dns(context)
    if len(context.cluster.control_planes) > 1:
        yield _balancer(context)
        yield _balancer_unit()


def units(context: Context) -> Iterator[Unit]:
    """The units, in the order of their start."""
    runtime = f"ctr -a /run/containerd/containerd.sock -n k8s.io image ls -q | grep -qx {PAUSE}"
    proxies = outside.drop_ins(context)
    yield Unit(
        "containerd.service",
        "prepare",
        (_CONTAINERD, _DROPIN, *(path for path in proxies if "containerd" in path)),
        runtime,
    )
    if len(context.cluster.control_planes) > 1:
        yield Unit("bazaar-balancer.service", "prepare", (_BALANCER,), reload=True)
    pki = tuple(f"{PKI}/{name}" for name in ("ca.crt", "client-ca.crt", "kubelet.crt"))
    yield Unit(
        "kubelet.service",
        "node",
        (
            *(KUBELET, "/etc/kubernetes/kubelet.conf", *pki),
            *(path for path in proxies if "kubelet" in path),
        ),
        "[ -S /var/lib/kubelet/device-plugins/kubelet.sock ]",
    )
    proxy = ("/var/lib/kube-proxy/config.yaml", "/etc/kubernetes/kube-proxy.conf")
    yield Unit("kube-proxy.service", "node", proxy)
    # It reads its Corefile again by itself.
    answers = f"{context.program('kubectl')} --server http://127.0.0.1:8181 get --raw /ready"
    yield Unit("coredns.service", "node", ("/etc/kubernetes/coredns.conf",), answers)
    yield from storage.units(context)


def packages(context: Context) -> list[str]:
    """The programs that are the system's own, which the machine lacks."""
    wanted = ["containerd", "runc", "nft", "conntrack"]
    if len(context.cluster.control_planes) > 1:
        wanted.append("haproxy")
    if context.network == "wireguard":
        wanted.append("wg")
    names = {"nft": "nftables", "wg": "wireguard-tools"}
    return [names.get(name, name) for name in wanted if name not in context.facts.programs]


# ---------------------------------------------------------------- containerd

_GVISOR = "/var/lib/bazaar-node/runsc"


def _containerd(context: Context) -> Iterator[File]:
    facts, driver = context.facts, _cgroup_driver(context)
    snapshotter = "native" if facts.value("containerd_type") in _OVERLAYS else "overlayfs"
    cri: dict[str, Any] = {
        "sandbox_image": PAUSE,
        "restrict_oom_score_adj": not _may_lower_oom(context),
        "max_container_log_line_size": 262144,
    }
    systemd = str(driver == "systemd").lower()
    lines = [
        "version = 2",
        "oom_score = 0" if not _may_lower_oom(context) else "oom_score = -999",
        '[plugins."io.containerd.grpc.v1.cri"]',
        *(f"  {name} = {_toml(value)}" for name, value in cri.items()),
        '[plugins."io.containerd.grpc.v1.cri".cni]',
        f'  bin_dir = "{CNI_PROGRAMS}"',
        '  conf_dir = "/etc/cni/net.d"',
        '[plugins."io.containerd.grpc.v1.cri".registry]',
        '  config_path = "/etc/containerd/certs.d"',
        '[plugins."io.containerd.grpc.v1.cri".containerd]',
        f'  snapshotter = "{snapshotter}"',
        '  default_runtime_name = "runc"',
        *_runtime("runc", {"SystemdCgroup": systemd}),
    ]
    if context.gvisor:
        lines += _runtime("runsc", {"BinaryName": f'"{_GVISOR}"', "SystemdCgroup": systemd})
        yield text(_GVISOR, _gvisor_wrapper(context), 0o755)
    yield text(_CONTAINERD, "\n".join([*lines, ""]))
    # What is in the programs' set is there again after whatever happened to containerd's store.
    load = (
        f"ExecStartPost=-/bin/sh -c 'ctr -n k8s.io image ls -q | grep -qx {PAUSE} || "
        f"ctr -n k8s.io image import {context.further('pause.tar')}'"
    )
    yield text(_DROPIN, f"[Service]\n{load}\n")


def _runtime(name: str, options: dict[str, str]) -> list[str]:
    table = f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}'
    return [
        f"{table}]",
        '  runtime_type = "io.containerd.runc.v2"',
        f"{table}.options]",
        *(f"  {key} = {value}" for key, value in options.items()),
    ]


def _gvisor_wrapper(context: Context) -> str:
    """runsc as containerd's shim for runc calls it."""
    text = (Path(__file__).parent / "runsc.sh").read_text()
    return text.replace("@RUNSC@", context.further("runsc"))


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


def _may_lower_oom(context: Context) -> bool:
    bound = context.facts.value("capabilities")
    try:
        return bool(int(bound or "0", 16) >> _CAP_SYS_RESOURCE & 1)
    except ValueError:
        return False


def _cgroup_driver(context: Context) -> str:
    return "systemd" if context.facts.value("cgroup") == "2" else "cgroupfs"


# ------------------------------------------------------------------- kubelet


def _kubelet(context: Context) -> Iterator[File]:
    node, cluster, facts = context.node, context.cluster, context.facts
    pair = context.pair("kubelet")
    yield text(f"{PKI}/ca.crt", context.authority("ca"))
    yield text(f"{PKI}/client-ca.crt", context.authority("ca") + context.authority("signer"))
    yield text(f"{PKI}/kubelet.crt", pair["certificate"])
    yield text(f"{PKI}/kubelet.key", pair["key"], 0o600)
    user = f"system:node:{node.name}"
    yield kubeconfig(context, "kubelet-client", user, "/etc/kubernetes/kubelet.conf")
    document: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": f"{PKI}/client-ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": _cgroup_driver(context),
        "clusterDNS": [cluster.dns_ip],
        "clusterDomain": cluster.domain,
        "containerRuntimeEndpoint": _SOCKET,
        "failSwapOn": False,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "rotateCertificates": True,
        "serverTLSBootstrap": False,
        "staticPodPath": "/etc/kubernetes/manifests",
        "streamingConnectionIdleTimeout": "4h0m0s",
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "tlsMinVersion": "VersionTLS12",
        "resolvConf": "/etc/resolv.conf",
        "nodeStatusUpdateFrequency": "10s",
        "registerWithTaints": [_taint(one) for one in cluster.taints_of(node)],
    }
    if facts.value("cgroup") != "2":
        document["failCgroupV1"] = False
    if facts.value("root_type") in _OVERLAYS:
        document["localStorageCapacityIsolation"] = False  # it cannot tell what is whose there
    if cluster.feature_gates:
        document["featureGates"] = dict(cluster.feature_gates)
    document |= hardening.kubelet(cluster)
    yield yaml(KUBELET, document)
    values = {
        "config": KUBELET,
        "kubeconfig": "/etc/kubernetes/kubelet.conf",
        "hostname-override": node.name,
        "node-ip": ",".join(filter(None, (node.ip, node.address6 if cluster.dual else ""))),
    }
    yield unit(
        "kubelet.service",
        "kubelet, the node agent of Kubernetes",
        [context.program("kubelet"), *flags(values, context, "kubelet")],
        after="containerd.service",
        kind="notify",
        service=(
            "TimeoutStartSec=120",
            "ExecStartPre=/bin/mkdir -p /etc/kubernetes/manifests",
            # What it had signed for itself counts less than what was issued to it since.
            f"ExecStartPre=/bin/sh -c '[ ! {_KUBECONFIG} -nt {_ROTATED} ] || rm -f {_ROTATED}'",
        ),
    )


def _taint(taint: str) -> dict[str, str]:
    """``key=value:Effect``, as kubectl has it."""
    name, _, effect = taint.rpartition(":")
    key, _, value = name.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


# ---------------------------------------------------------------- kube-proxy


def _proxy(context: Context) -> Iterator[File]:
    path = "/etc/kubernetes/kube-proxy.conf"
    yield kubeconfig(context, "kube-proxy", "system:kube-proxy", path)
    document: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",  # noqa: S104 - Services are for others
        "clientConnection": {"kubeconfig": path},
        "clusterCIDR": context.cluster.pod_range,
        # What the kernel allows, it allows already; in a namespace this cannot be written.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "0.0.0.0:10256",
        "hostnameOverride": context.node.name,
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "nftables",
        "nodePortAddresses": ["primary"],
    }
    if context.cluster.feature_gates:
        document["featureGates"] = dict(context.cluster.feature_gates)
    yield yaml("/var/lib/kube-proxy/config.yaml", document)
    values = {"config": "/var/lib/kube-proxy/config.yaml"}
    yield unit(
        "kube-proxy.service",
        "kube-proxy, the Services of Kubernetes",
        [context.program("kube-proxy"), *flags(values, context, "kube-proxy")],
    )


# ----------------------------------------------------------------------- DNS


def _dns(context: Context) -> Iterator[File]:
    path, cluster = "/etc/kubernetes/coredns.conf", context.cluster
    yield kubeconfig(context, "coredns", "system:coredns", path)
    forward = "  forward . /etc/resolv.conf\n" if context.facts.value("name_servers") else ""
    corefile = (
        # The zones that an edge serves to the world.
        "import /etc/bazaar-edge/*/zone.conf\n"
        ".:53 {\n"
        f"  bind {context.node.ip}\n"
        "  errors\n"
        # Pods and machines may ask; the world may not.
        f"  acl {{\n    allow net {' '.join(cluster.pod_ranges)} {' '.join(_machines(context))}\n"
        "    block\n  }\n"
        "  health 127.0.0.1:8080\n"
        "  ready 127.0.0.1:8181\n"
        f"  kubernetes {cluster.domain} in-addr.arpa ip6.arpa {{\n"
        f"    kubeconfig {path}\n"
        "    pods insecure\n"
        "    fallthrough in-addr.arpa ip6.arpa\n"
        "    ttl 30\n"
        "  }\n"
        "  prometheus 127.0.0.1:9153\n"
        f"{forward}"
        "  cache 30\n"
        "  loadbalance\n"
        "  reload 2s\n"
        "}\n"
    )
    yield text("/etc/coredns/Corefile", corefile)
    yield unit(
        "coredns.service",
        "CoreDNS, the names of Kubernetes",
        [context.program("coredns"), "-conf", "/etc/coredns/Corefile"],
    )


def _machines(context: Context) -> list[str]:
    return [f"{node.ip}/32" for node in context.cluster.nodes]


# ------------------------------------------------------------------ balancer

_BALANCER = "/etc/bazaar-node/balancer.cfg"


def _balancer(context: Context) -> File:
    """HAProxy on loopback before all API servers: a lost one is left within two seconds."""
    cluster = context.cluster
    servers = "".join(
        f"  server {node.name} {node.ip}:{cluster.api_port} check check-ssl verify required "
        f"ca-file {PKI}/ca.crt inter 1s fall 2 rise 2 on-marked-down shutdown-sessions\n"
        for node in cluster.control_planes
    )
    return text(
        _BALANCER,
        "global\n  maxconn 4096\n"
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n"
        "  timeout check 2s\n  retries 3\n  option redispatch\n"
        "frontend api\n"
        f"  bind 127.0.0.1:{BALANCER_PORT}\n"
        "  default_backend control_planes\n"
        "backend control_planes\n"
        "  balance leastconn\n"
        "  option httpchk GET /readyz\n"
        f"{servers}",
    )


def _balancer_unit() -> File:
    return unit(
        "bazaar-balancer.service",
        "The way to the API servers",
        ["/usr/sbin/haproxy", "-W", "-db", "-f", _BALANCER],
        service=("ExecReload=/bin/kill -USR2 $MAINPID",),
    )
