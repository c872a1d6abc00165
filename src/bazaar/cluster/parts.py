"""What the pure functions that say how a machine is to be hand one another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bazaar.cluster import pki
from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import SETS, Facts
from bazaar.model.record import record

PKI = "/etc/kubernetes/pki"
UNITS = "/etc/systemd/system"
PHASES = ("prepare", "etcd", "control-plane", "node")  # with a barrier after each


@record
class File:
    """A file as it is to be."""

    path: str
    content: bytes
    mode: int = 0o644

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@record
class Unit:
    """A systemd unit, what it has to be started again for, and how to know that it works."""

    name: str
    phase: str
    files: tuple[str, ...]  # paths
    ready: str = ""  # a shell condition to wait for after a start
    reload: bool = False  # once it runs, it is told to read its files again


@record
class Programs:
    """A set of programs: where it lies here, what it is called on the machines."""

    version: str
    folder: str  # here
    manifest: str  # the digest of its manifest.json
    has: tuple[str, ...] = ()  # the names of what may be there or not
    lacks: tuple[str, ...] = ()  # what a cluster goes without for that, and why
    packages: str = ""  # here, a folder with the distribution's packages, where they were brought
    system: str = ""  # whose they are: a machine's os_name

    @property
    def there(self) -> str:
        """The folder on the machines."""
        return f"{SETS}/{PurePath(self.folder).name}"


@record
class Context:
    """All that says how one machine is to be."""

    cluster: Cluster
    node: Node
    facts: Facts
    network: str  # routes | vxlan | wireguard | none
    keys: Mapping[str, Any]  # what pki.renewed returned
    programs: Programs
    extras: Programs
    gvisor: bool
    members: tuple[str, ...] = ()  # of etcd, by node, where there are some that it joins

    def program(self, name: str) -> str:
        """Where a program of ours lies on the machine."""
        return f"{self.programs.there}/bin/{name}"

    def further(self, name: str) -> str:
        """Where another file of ours lies there."""
        return f"{self.extras.there}/bin/{name}"

    @property
    def packages(self) -> str:
        """The folder, here, of packages for this machine's system; "": it gets them itself."""
        brought = self.programs
        return brought.packages if brought.system == self.facts.value("os_name") else ""

    @property
    def local_server(self) -> str:
        """The API as the machine itself reaches it, whatever control plane is lost."""
        if len(self.cluster.control_planes) > 1:
            return f"https://127.0.0.1:{BALANCER_PORT}"
        only = next(iter(self.cluster.control_planes))
        return f"https://{only.ip}:{self.cluster.api_port}"

    def authority(self, name: str) -> str:
        """The certificates by which what an authority signed is believed."""
        return pki.trusted(self.keys["authorities"][name])

    def signing(self, name: str) -> str:
        """The certificate of the one that signs."""
        return self.keys["authorities"][name]["certificate"]

    def pair(self, name: str) -> Mapping[str, Any]:
        return self.keys["pairs"][f"{self.node.name}/{name}"]


BALANCER_PORT = 7443
_GATED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def text(path: str, content: str, mode: int = 0o644) -> File:
    return File(path, content.encode(), mode)


def yaml(path: str, document: Mapping[str, Any], mode: int = 0o644) -> File:
    """A YAML file for programs of Kubernetes."""
    from yaml import safe_dump

    return text(path, safe_dump(dict(document), sort_keys=False, width=100), mode)


def kubeconfig(context: Context, pair: str, user: str, path: str, server: str = "") -> File:
    """A kubeconfig with the certificates in it, for its owner alone."""
    document = kubeconfig_of(
        context.cluster.name,
        server or context.local_server,
        user,
        context.authority("ca"),
        context.pair(pair),
    )
    return yaml(path, document, 0o600)


def kubeconfig_of(
    cluster: str, server: str, user: str, authority: str, pair: Mapping[str, Any]
) -> dict[str, Any]:
    """What a kubeconfig says (kubeconfig v1)."""
    import base64

    def encoded(pem: str) -> str:
        return base64.b64encode(pem.encode()).decode()

    name = f"{user}@{cluster}"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": server, "certificate-authority-data": encoded(authority)},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(pair["certificate"]),
                    "client-key-data": encoded(pair["key"]),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": cluster, "user": user}}],
        "current-context": name,
    }


def unit(
    name: str,
    description: str,
    command: list[str],
    *,
    after: str = "network-online.target",
    kind: str = "simple",
    restart: str = "always",
    service: Sequence[str] = (),
) -> File:
    """A service unit, started again whatever it ends of where nothing else is said."""
    lines = [
        "[Unit]",
        f"Description={description}",
        f"After={after}",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"Type={kind}",
        "ExecStart=" + " \\\n  ".join(command),
        *(
            (f"Restart={restart}", "RestartSec=1", "LimitNOFILE=1048576")
            if kind != "oneshot"
            else ()
        ),
        *service,
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return text(f"{UNITS}/{name}", "\n".join(lines))


def flags(values: Mapping[str, str], context: Context, component: str) -> list[str]:
    """Command line words of a component: ours, then what the user adds or changes."""
    merged = {**values, **context.cluster.extra_args.get(component, {})}
    # etcd has gates of its own; kubelet and kube-proxy read theirs in their configurations.
    gates: Mapping[str, bool] = context.cluster.feature_gates if component in _GATED else {}
    if gates and "feature-gates" not in merged:
        merged["feature-gates"] = ",".join(f"{k}={str(v).lower()}" for k, v in gates.items())
    return [f"--{name}={value}" for name, value in merged.items()]


def digest(*contents: bytes) -> str:
    """One digest of several files."""
    return hashlib.sha256(
        json.dumps([hashlib.sha256(one).hexdigest() for one in contents]).encode()
    ).hexdigest()[:16]
