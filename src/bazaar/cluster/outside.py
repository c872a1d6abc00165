"""The ways out of a machine: registries' mirrors for containerd, proxies for it and kubelet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from bazaar.cluster.parts import UNITS, Context, File, text

_CERTS = "/etc/containerd/certs.d"
_HUB = {"docker.io": "https://registry-1.docker.io"}  # where its images are, by another name
_PROXIED = ("containerd", "kubelet")


def files(context: Context) -> Iterator[File]:
    """One file for each registry that has mirrors, one for each program that has a proxy."""
    for registry, mirrors in context.cluster.registry_mirrors.items():
        yield text(f"{_CERTS}/{registry}/hosts.toml", _hosts(registry, mirrors))
    for path in drop_ins(context):
        yield text(path, _environment(context))


def drop_ins(context: Context) -> tuple[str, ...]:
    """The paths of the drop-ins that say the proxy."""
    if not (context.cluster.proxy.get("http") or context.cluster.proxy.get("https")):
        return ()
    return tuple(f"{UNITS}/{name}.service.d/bazaar-proxy.conf" for name in _PROXIED)


def _hosts(registry: str, mirrors: Sequence[str]) -> str:
    """containerd's hosts.toml: it is read at each pull, so containerd goes on running."""
    lines: list[str] = []
    if registry != "_default":  # that is any registry: the one asked for comes after its mirrors
        lines += [f"server = {json.dumps(_HUB.get(registry, f'https://{registry}'))}", ""]
    for mirror in mirrors:
        lines += [f"[host.{json.dumps(mirror)}]", '  capabilities = ["pull", "resolve"]', ""]
    return "\n".join(lines)


def _environment(context: Context) -> str:
    proxy = context.cluster.proxy
    values = {
        "HTTP_PROXY": proxy.get("http", ""),
        "HTTPS_PROXY": proxy.get("https", ""),
        "NO_PROXY": ",".join(_near(context)),
    }
    # systemd takes % for a specifier.
    lines = [f'Environment="{k}={v.replace("%", "%%")}"' for k, v in values.items() if v]
    return "\n".join(["[Service]", *lines, ""])


def _near(context: Context) -> list[str]:
    """What no proxy is asked for: the cluster itself, and what was said."""
    cluster = context.cluster
    own = ["localhost", "127.0.0.1", *(node.ip for node in cluster.nodes)]
    ranges = [*cluster.service_range.split(","), *cluster.pod_range.split(",")]
    said = [word for word in cluster.proxy.get("no_proxy", "").split(",") if word]
    names = [name for name in (cluster.endpoint,) if name]
    return list(dict.fromkeys([*own, *ranges, ".svc", f".{cluster.domain}", *names, *said]))
