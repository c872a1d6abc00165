"""A site's Kubernetes cluster and its machines, as a user writes them in Python or YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from bazaar.spec import cluster_fields as its
from bazaar.spec import fields

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Machine:
    """A machine of a cluster, reached by SSH."""

    address: str
    name: str | None = None  # as a node; by its address where nobody says
    user: str | None = None
    port: int | None = None
    key: str | None = None  # the private key's file
    known_hosts: str | None = None
    jump: Machine | None = None  # the machine one has to go through
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    taints: Sequence[str] = ()
    role: str | None = None  # control-plane | worker | etcd
    internal_address: str | None = None  # where the others reach it

    def __hash__(self) -> int:
        return hash((self.address, self.name, self.port))


@dataclass(frozen=True)
class Proxy:
    """The way out of the machines' network, for containerd and kubelet."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    http: Annotated[str | None, its.URL, Field(description="For addresses of http.")] = None
    https: Annotated[str | None, its.URL, Field(description="For addresses of https.")] = None
    no_proxy: Annotated[
        str | Sequence[str],
        its.NO_PROXY,
        Field(description="What is reached without it, beside the cluster's own ranges."),
    ] = ()


@dataclass(frozen=True)
class Cluster:
    """Makes a site a Kubernetes cluster; everything has a default."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    version: Annotated[
        str | None, its.VERSION, Field(description="Of Kubernetes; the newest known by default.")
    ] = None
    control_planes: Annotated[
        int | None,
        its.CONTROL_PLANES,
        Field(description="How many; 3 where there are as many machines, else 1."),
    ] = None
    etcd: Annotated[
        Literal["stacked", "separate"],
        fields.choice("stacked", "separate"),
        Field(description="On the control planes, or on machines of the role `etcd`."),
    ] = "stacked"
    network: Annotated[
        Literal["auto", "routes", "vxlan", "wireguard", "none"],
        fields.choice("auto", "routes", "vxlan", "wireguard", "none"),
        Field(description="How pods of different machines reach one another."),
    ] = "auto"
    service_range: Annotated[
        str | None, its.RANGE, Field(description="Services' addresses; 10.96.0.0/16.")
    ] = None
    pod_range: Annotated[
        str | None,
        its.RANGE,
        Field(description="Pods' addresses; 10.244.0.0/16. A second, of IPv6, by a comma."),
    ] = None
    domain: Annotated[str, its.DOMAIN, Field(description="The domain of Services' names.")] = (
        "cluster.local"
    )
    endpoint: Annotated[
        str | None,
        its.ADDRESS,
        Field(description="Where clients reach the API; the first control plane by default."),
    ] = None
    api_port: Annotated[int, fields.PORT, Field(description="The API servers' port.")] = 6443
    gvisor: Annotated[
        bool, its.TRUTH, Field(description="Own kernels for pods, by the RuntimeClass `gvisor`.")
    ] = True
    audit: Annotated[bool, its.TRUTH, Field(description="Whether requests are logged.")] = True
    feature_gates: Annotated[
        Mapping[str, bool], its.GATES, Field(description="Of Kubernetes, by their names.")
    ] = field(default_factory=dict[str, bool])
    extra_args: Annotated[
        Mapping[str, Mapping[str, str]],
        its.ARGUMENTS,
        Field(description="Further flags without dashes, by component: they win over ours."),
    ] = field(default_factory=dict[str, Mapping[str, str]])
    registry_mirrors: Annotated[
        Mapping[str, str | Sequence[str]],
        its.MIRRORS,
        Field(description="Mirrors' addresses by registry; `_default` is all registries."),
    ] = field(default_factory=dict[str, str | Sequence[str]])
    proxy: Annotated[Proxy | None, Field(description="The way out for containerd and kubelet.")] = (
        None
    )
    manifests: Annotated[
        str | Sequence[str],
        its.PATHS,
        Field(description="Files of manifests that are applied, and pruned when gone from here."),
    ] = ()
    hardening: Annotated[
        Literal["none", "cis"],
        fields.choice("none", "cis"),
        Field(description="`cis`: as the CIS benchmark asks, beyond what is so by default."),
    ] = "none"
