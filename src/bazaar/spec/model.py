"""Class Bazaar and its parts, as a user writes them in Python or YAML.

Plain frozen values: making one checks nothing. `load` and `check` check everything, report
every mistake at once, and return the normal form, in which lists are tuples and shorthands
are spelled out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from bazaar.spec import cluster_fields, fields
from bazaar.spec.cluster import Cluster, Machine

# A part of the description takes its own fields and no others.
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Secret:
    """A value that stays out of the description: read by `bazaar up`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    file: Annotated[
        str | None, fields.PATH, Field(description="A file of the host that holds the value.")
    ] = None
    env: Annotated[
        str | None,
        fields.VARIABLE,
        Field(description="An environment variable of whoever calls `bazaar up`."),
    ] = None


@dataclass(frozen=True)
class Volume:
    """Named data of a service, or a directory of the host, seen inside its replicas."""

    source: str  # a volume's name, or an absolute path of the host
    target: str  # an absolute path inside
    read_only: bool = False


@dataclass(frozen=True)
class File:
    """A small file put into every replica, such as a configuration."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    content: Annotated[
        str | None, fields.TEXT, Field(description="What the file holds, as text.")
    ] = None
    file: Annotated[
        str | None, fields.PATH, Field(description="A file of the host to take the content from.")
    ] = None


@dataclass(frozen=True)
class Health:
    """How a service says that it works."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: Annotated[
        Literal["http", "tcp", "none"] | None,
        fields.choice("http", "tcp", "none"),
        Field(description="`http`: a status from 200 to 399; `tcp`: the port answers."),
    ] = None
    path: Annotated[
        str | None, fields.URL_PATH, Field(description="What an HTTP check asks for; `/`.")
    ] = None
    interval: Annotated[
        str | float | None, fields.DURATION, Field(description="Time between two checks; 1s.")
    ] = None
    timeout: Annotated[
        str | float | None, fields.DURATION, Field(description="How long an answer may take; 2s.")
    ] = None
    start_period: Annotated[
        str | float | None,
        fields.DURATION,
        Field(description="How long a replica may take until it first answers; 60s."),
    ] = None


@dataclass(frozen=True)
class Restart:
    """The pauses before a replica that died is started again: doubled each time."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    first: Annotated[
        str | float, fields.DURATION, Field(description="The pause after the first death.")
    ] = "100ms"
    longest: Annotated[str | float, fields.DURATION, Field(description="The longest pause.")] = (
        "30s"
    )


@dataclass(frozen=True)
class Site:
    """A location or availability zone, where services run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Annotated[str, fields.LABEL]
    provider: Annotated[
        str,
        fields.PROVIDER,
        Field(
            description="`local`: on this machine, a network namespace or a cluster's machines; "
            "`hosts`: machines of yours. Others: later versions."
        ),
    ] = "local"
    subnet: Annotated[
        str | None, fields.SITE_SUBNET, Field(description="The site's network, a private /24.")
    ] = None
    cluster: Annotated[
        Cluster | None,
        Field(description="Makes the site a Kubernetes cluster; may be empty: `cluster: {}`."),
    ] = None
    region: Annotated[
        str | None, fields.LINE, Field(description="The provider's region. Later versions.")
    ] = None
    zone: Annotated[
        str | None, fields.LINE, Field(description="The region's zone. Later versions.")
    ] = None
    machines: Annotated[
        int | Sequence[str | Machine] | None,
        cluster_fields.machines(Machine),
        Field(
            description="A cluster's machines: of `local` how many, of `hosts` a list, each "
            "`[NAME=][USER@]ADDRESS[:PORT]` or a mapping with name, address, user, port, key, "
            "known_hosts, jump, labels, taints, role and internal_address."
        ),
    ] = None


@dataclass(frozen=True)
class Service:
    """An image, or a stand of the catalogue, run in replicas behind one address."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Annotated[str, fields.LABEL]
    stand: Annotated[
        str | None, fields.STAND, Field(description="A ready-made service: `bazaar stands`.")
    ] = None
    image: Annotated[
        str | None,
        fields.IMAGE,
        Field(
            description="What to run: `deb://bookworm?packages=apache2`, a name in a registry, "
            "`docker://…`, `oci:DIR` or `dir:PATH`."
        ),
    ] = None
    command: Annotated[
        str | Sequence[str] | None,
        fields.COMMAND,
        Field(description="Replaces the image's command: one line, or a list of words."),
    ] = None
    entrypoint: Annotated[
        str | Sequence[str] | None,
        fields.COMMAND,
        Field(description="Replaces the image's entrypoint: one line, or a list of words."),
    ] = None
    port: Annotated[
        int | None, fields.PORT, Field(description="Where the program listens for TCP.")
    ] = None
    replicas: Annotated[
        int, fields.REPLICAS, Field(description="How many run in each of its sites.")
    ] = 1
    sites: Annotated[
        str | Sequence[str],
        fields.SITES,
        Field(description="Where it runs: `all`, or a list of sites' names."),
    ] = "all"
    kernel: Annotated[
        Literal["own", "shared"] | None,
        fields.choice("own", "shared"),
        Field(description="A kernel of its own (the default), or the host's."),
    ] = None
    environment: Annotated[
        Mapping[str, str | Secret],
        fields.environment(Secret),
        Field(description="Variables: plain text, or a secret as `{file: PATH}` or `{env: NAME}`."),
    ] = field(default_factory=dict[str, str | Secret])
    volumes: Annotated[
        Sequence[str | Volume],
        fields.volumes(Volume),
        Field(description="`NAME:/path` or `/path/on/host:/path`, with `:ro` for reading only."),
    ] = ()
    files: Annotated[
        Mapping[str, str | File],
        fields.files(File),
        Field(description="Small files by their path inside: the text, or `{file: PATH}`."),
    ] = field(default_factory=dict[str, str | File])
    memory: Annotated[
        str | int | None, fields.MEMORY, Field(description="Most memory of a replica: 256M.")
    ] = None
    cpus: Annotated[
        float | None, fields.CORES, Field(description="Most processor cores of a replica: 0.5.")
    ] = None
    pids: Annotated[
        int | None, fields.PIDS, Field(description="Most processes and threads of a replica.")
    ] = None
    health: Annotated[
        Health | None, Field(description="How it is checked; of the kind of `mode` by default.")
    ] = None
    publish: Annotated[
        int | str | Sequence[int | str],
        fields.PUBLISH,
        Field(description="Ports of the host that lead here: 8080 (loopback), 0.0.0.0:8080."),
    ] = ()
    certificate: Annotated[
        str | None,
        fields.PATH,
        Field(
            description="A PEM file with key and chain: TLS at the front address, for HTTP at "
            "port 443; the replicas listen at `port` without TLS."
        ),
    ] = None
    mode: Annotated[
        Literal["http", "tcp"] | None,
        fields.choice("http", "tcp"),
        Field(description="What is balanced: requests, or connections."),
    ] = None
    nearest: Annotated[
        bool | str | None,
        fields.NEAREST,
        Field(description="A site whose replicas are preferred; `true`: the service's first."),
    ] = None
    working_directory: Annotated[
        str | None, fields.INSIDE, Field(description="Where the program starts.")
    ] = None
    user: Annotated[
        str | None, fields.USER, Field(description="Who the program runs as: NAME or UID[:GID].")
    ] = None
    restart: Annotated[
        Restart | None, Field(description="The pauses before a dead replica starts again.")
    ] = None


@dataclass(frozen=True)
class Probe:
    """A trace program that stays attached and feeds the status page and the metrics."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Annotated[str, fields.LABEL]
    text: Annotated[
        str | None, fields.PROGRAM, Field(description="A program of the bpftrace language.")
    ] = None
    file: Annotated[
        str | None, fields.PATH, Field(description="A file that holds the program.")
    ] = None


@dataclass(frozen=True)
class Shield:
    """What guards the front door against floods."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    rate: Annotated[
        str | int, fields.RATE, Field(description="Packets one source may send: 2000/s.")
    ] = "2000/s"
    burst: Annotated[
        int | None,
        fields.BURST,
        Field(description="Packets a source may send at once; two seconds' worth by default."),
    ] = None
    allow: Annotated[
        Sequence[str],
        fields.ALLOW,
        Field(description="Addresses and networks that are never blocked."),
    ] = ()
    block: Annotated[
        str | float, fields.DURATION, Field(description="How long a flooding source is shut out.")
    ] = "60s"
    mode: Annotated[
        Literal["on", "dry-run", "off"],
        fields.choice("on", "dry-run", "off"),
        Field(description="`dry-run` counts what it would drop, and drops nothing."),
    ] = "on"


@dataclass(frozen=True)
class Bazaar:
    """Sites, and the services, probes and shield that are to run in them."""

    name: Annotated[str, fields.LABEL]
    subnet: Annotated[
        str | None,
        fields.BAZAAR_SUBNET,
        Field(description="A private /16 for all sites and fronts; a free one by default."),
    ] = None
    sites: Sequence[Site] = ()
    services: Sequence[Service] = ()
    probes: Sequence[Probe] = ()
    shield: Annotated[
        Shield | None, Field(description="Guards the front door; without it nothing does.")
    ] = None
    domain: Annotated[
        str | None,
        cluster_fields.DOMAIN,
        Field(description="The zone of names that the edges of clusters serve, `web.DOMAIN`."),
    ] = None
