"""HAProxy's configuration, as text: pure functions of the fronts a bazaar has.

Of a front, only the server lines change while a bazaar runs; everything else is its
structure, and a changed structure is what HAProxy has to be reloaded for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from bazaar.errors import NetworkError
from bazaar.model.site import Backend, Front, Publish

_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_BACKEND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,150}")
_WEIGHT, _HEAVIEST = 20, 256  # of one replica, and what HAProxy takes at most


@dataclass(frozen=True, slots=True)
class Settings:
    """What depends on the machine and the bazaar, not on its fronts."""

    bazaar: str
    user: str = "haproxy"
    group: str = "haproxy"
    maximum: int = 4000  # connections at once; 36 kB of memory each at worst
    threads: int = 2
    host: str = ""  # the name of the host's namespace, where ports are published


@dataclass(frozen=True, slots=True)
class Server:
    """One server of HAProxy: a replica at an address, with the words of its line."""

    backend: str
    name: str
    address: str
    port: int
    weight: int
    options: str

    @property
    def path(self) -> str:
        """What the runtime commands call it."""
        return f"{self.backend}/{self.name}"

    @property
    def checked(self) -> bool:
        """Whether HAProxy asks it for its health."""
        return self.options.startswith("check ")


def render(settings: Settings, fronts: Sequence[Front]) -> str:
    """The whole configuration. NetworkError when a front cannot be expressed."""
    check(fronts)
    lines = _head(settings)
    for front in sorted(fronts, key=lambda one: one.service):
        lines += ["", *_frontend(settings, front), "", *_backend(front)]
    return "\n".join([*lines, ""])


def structure(text: str) -> str:
    """A configuration without its server lines."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("    server "))


def servers(fronts: Sequence[Front]) -> list[Server]:
    """All servers of all fronts, in the order of the configuration."""
    return [
        Server(
            front.service,
            server_name(backend.id),
            backend.address,
            backend.port,
            0 if backend.draining else min(_HEAVIEST, _WEIGHT * backend.weight),
            _options(front, backend),
        )
        for front in sorted(fronts, key=lambda one: one.service)
        for backend in front.backends
    ]


def server_name(backend: str) -> str:
    """A replica's id as HAProxy takes it: it allows no '/' in names."""
    if not _BACKEND.fullmatch(backend):
        raise NetworkError(f"{backend!r} cannot name a replica")
    return backend.replace("/", ":")


def backend_id(name: str) -> str:
    """The replica's id behind a server's name."""
    return name.replace(":", "/")


def check(fronts: Sequence[Front]) -> None:
    """Refuse what would not be one valid configuration, before anything is touched."""
    seen: dict[tuple[str, int], str] = {}
    for front in fronts:
        if not _SERVICE.fullmatch(front.service):
            raise NetworkError(f"{front.service!r} cannot name a service")
        if front.mode not in ("http", "tcp") or front.health.kind not in ("http", "tcp", "none"):
            raise NetworkError(f"{front.service}: unknown mode or health check")
        if front.health.interval <= 0 or front.health.timeout <= 0:
            raise NetworkError(f"{front.service}: a health check's times must be above 0")
        _quoted(front.health.path)
        for place in (Publish(front.address, front.port), *front.publish):
            _endpoint(front.service, place.address, place.port)
            if (other := seen.get((place.address, place.port))) is not None:
                who = "twice" if other == front.service else f"by {other} too"
                raise NetworkError(
                    f"{front.service} asks for {place.address}:{place.port}, asked for {who}"
                )
            seen[place.address, place.port] = front.service
        for backend in front.backends:
            _endpoint(backend.id, backend.address, backend.port)
    names = [front.service for front in fronts]
    replicas = [server_name(one.id) for front in fronts for one in front.backends]
    if len({*names}) != len(names) or len({*replicas}) != len(replicas):
        raise NetworkError("two services or two replicas have the same name")


def _head(settings: Settings) -> list[str]:
    return [
        f"# The balance of the bazaar {settings.bazaar}: written by Bazaar, read by HAProxy.",
        "global",
        f"    maxconn {settings.maximum}",
        f"    nbthread {settings.threads}",
        f"    user {settings.user}",
        f"    group {settings.group}",
        "    chroot empty",
        # Listeners pass from the old worker to the new one through this socket at a reload.
        "    stats socket unix@admin.sock mode 600 level admin expose-fd listeners",
        "    server-state-file servers.state",
        "    hard-stop-after 30s",
        "    spread-checks 5",
        "    ssl-default-bind-options ssl-min-ver TLSv1.2",
        "",
        "defaults",
        "    load-server-state-from-file global",
        "    balance roundrobin",
        # Replicas are near. Checks wait as long to connect: a silent site is known within 3 s.
        "    timeout connect 700ms",
        "    timeout queue 5s",
        "    timeout tunnel 1h",
        "    retries 3",
        # Each retry goes to another replica, not only the last.
        "    option redispatch 1",
        # The replicas of far sites share the load when the near site has none left.
        "    option allbackups",
    ]


def _frontend(settings: Settings, front: Front) -> list[str]:
    secure = ""
    if front.certificate is not None:
        protocols = " alpn h2,http/1.1" if front.mode == "http" else ""
        secure = f" ssl crt {_quoted(str(front.certificate))}{protocols}"
    outside = f" namespace {settings.host}" if settings.host else ""
    lines = [f"frontend {front.service}", f"    mode {front.mode}"]
    if front.certificate_digest:
        lines += [f"    # sha256 {front.certificate_digest}"]
    lines += [f"    bind {_joined(front.address, front.port)}{secure}"]
    lines += [
        f"    bind {_joined(one.address, one.port)}{outside}{secure}" for one in front.publish
    ]
    if front.mode == "http":
        lines += [
            "    timeout client 60s",
            "    timeout http-request 10s",
            "    timeout http-keep-alive 10s",
            # At a reload a waiting client gets its next answer from the old worker, not an end.
            "    option idle-close-on-response",
            "    option forwardfor",
        ]
        if secure:
            lines += ["    http-request set-header X-Forwarded-Proto https"]
    else:
        lines += ["    timeout client 1h", "    option clitcpka"]
    return [*lines, f"    default_backend {front.service}"]


def _backend(front: Front) -> list[str]:
    lines = [f"backend {front.service}", f"    mode {front.mode}"]
    if front.mode == "http":
        lines += [
            "    timeout server 60s",
            "    retry-on conn-failure empty-response 0rtt-rejected",
            # RFC 9110, 9.2.1: only safe methods may be sent twice.
            "    http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE }",
        ]
    else:
        lines += ["    timeout server 1h"]
    # A replica that fell silent is noticed by the kernel: its connections fail after 1.4 s with
    # data on the way (tcp_retries2 of the front), 4 s without, and what may be sent twice is.
    # Shutting sessions down as a server is marked down would lose those that still connect.
    lines += [
        "    option srvtcpka",
        "    srvtcpka-idle 1s",
        "    srvtcpka-intvl 1s",
        "    srvtcpka-cnt 3",
    ]
    health = front.health
    if health.kind != "none":
        lines += [f"    timeout check {_milliseconds(health.timeout)}"]
    if health.kind == "http":
        lines += [
            "    option httpchk",
            f"    http-check send meth GET uri {_quoted(health.path)} hdr Host {front.service}",
            "    http-check expect status 200-399",
        ]
    return [*lines, *(_line(one) for one in servers([front]))]


def _line(server: Server) -> str:
    place = _joined(server.address, server.port)
    return f"    server {server.name} {place} {server.options} weight {server.weight}"


def _options(front: Front, backend: Backend) -> str:
    """A server's words; written out in full, for servers added at run time know no defaults."""
    words: list[str] = []
    if front.health.kind != "none":
        usual = front.health.interval
        words += [
            "check",
            f"inter {_milliseconds(usual)}",
            f"fastinter {_milliseconds(min(usual, 0.2))}",
            f"downinter {_milliseconds(min(usual, 0.25))}",
            "fall 2 rise 1",
            # Traffic notices a dead replica before the next check does.
            "observe layer4 error-limit 3 on-error mark-down",
        ]
    if front.nearest is not None and backend.site != front.nearest:
        words += ["backup"]
    return " ".join(words)


def _endpoint(who: str, address: str, port: int) -> None:
    try:
        ip_address(address)
    except ValueError:
        raise NetworkError(f"{who}: {address!r} is no address") from None
    if not 0 < port < 65536:
        raise NetworkError(f"{who}: {port} is no port")


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _quoted(word: str) -> str:
    """A word for HAProxy, in single quotes: nothing in there has a meaning but their end."""
    if not word or any(ord(letter) < 32 or letter in "'\x7f" for letter in word):
        raise NetworkError(f"{word!r} cannot stand in HAProxy's configuration")
    return f"'{word}'"
