"""Legitimate clients: HTTP requests by wrk, in a namespace of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from bazaar.errors import CommandError
from bazaar.host import commands, namespaces

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients got."""

    requests_per_second: float
    p50: float  # milliseconds
    p99: float
    errors: int  # sockets that failed and answers that were no success


def http(
    url: str, namespace: str | None, *, seconds: float, connections: int = 16, threads: int = 1
) -> Load:
    """Ask for ``url`` as fast as it answers for ``seconds`` (whole ones), over that many
    connections that are kept. Raises MissingError where wrk is not installed."""
    target = with_port(url)
    arguments = ["wrk", "--latency", "-t", threads, "-c", connections, "-d", f"{seconds:.0f}s"]
    arguments.append(target)
    with namespaces.enter(namespace):
        finished = commands.run(
            [str(part) for part in arguments], timeout=seconds + 20, package="wrk"
        )
    return parse(finished.output)


def with_port(url: str) -> str:
    """``url`` with its port written out: wrk looks it up in /etc/services otherwise, which a
    small root does not have."""
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    port = 443 if parts.scheme == "https" else 80
    return urlunsplit(parts._replace(netloc=f"{parts.netloc}:{port}"))


def parse(output: str) -> Load:
    """The figures in what wrk prints; CommandError where there are none."""
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", output, re.MULTILINE)
    if not rate:
        raise CommandError("wrk printed no result", output=output)
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    others = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    failed = sum(int(number) for number in sockets.groups()) if sockets else 0
    return Load(
        float(rate[1]),
        _percentile(output, 50),
        _percentile(output, 99),
        failed + (int(others[1]) if others else 0),
    )


def _percentile(output: str, which: int) -> float:
    found = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
