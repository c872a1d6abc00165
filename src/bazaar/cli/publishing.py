"""`bazaar run --publish`: what is to lead where, and the ports taken before anything starts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bazaar.errors import UsageError
from bazaar.model.container import PublishedPort

if TYPE_CHECKING:
    import socket

_WORDS = re.compile(r"(?:(\[[^\[\]]*\]|[^:]*):)?(\d{1,5}):(\d{1,5})(?:/(\w+))?", re.ASCII)
LOOPBACK = "127.0.0.1"


def parse(texts: Sequence[str]) -> tuple[PublishedPort, ...]:
    """``[ADDRESS:]PORT:PORT[/tcp]`` as docker reads it, loopback without an address."""
    found = tuple(map(_one, texts))
    for index, port in enumerate(found):
        if port.port and (port.address, port.port) in {(p.address, p.port) for p in found[:index]}:
            raise UsageError(f"port {port.port} of {port.address} is published twice")
    return found


def _one(text: str) -> PublishedPort:
    words = _WORDS.fullmatch(text)
    if words is None:
        raise UsageError(
            f"-p {text}: not [ADDRESS:]PORT:PORT",
            hint="the host's port, then the container's: 8080:80 (loopback) or 0.0.0.0:8080:80",
        )
    address, port, inside, protocol = words.groups()
    if protocol not in (None, "tcp"):
        raise UsageError(f"-p {text}: {protocol} is not forwarded", hint="TCP is")
    if int(port) > 65535 or not 0 < int(inside) <= 65535:
        raise UsageError(
            f"-p {text}: a port is a number from 1 to 65535", hint="0 of the host: any free one"
        )
    try:
        host = str(ipaddress.ip_address((address or LOOPBACK).strip("[]")))
    except ValueError as error:
        raise UsageError(
            f"-p {text}: '{address}' is no address of this machine",
            hint="127.0.0.1 (loopback), 0.0.0.0 (all), or one that `ip address` shows",
        ) from error
    return PublishedPort(host, int(port), int(inside))


def take(
    ports: Sequence[PublishedPort], name: str
) -> tuple[tuple[PublishedPort, ...], list[tuple[socket.socket, int]]]:
    """Listen on them all: the ports as they came out, and the sockets with the ports inside.

    NetworkError, naming the holder, when one is taken.
    """
    from bazaar.model.record import replace
    from bazaar.site import ports as host

    opened: list[tuple[socket.socket, int]] = []
    taken: list[PublishedPort] = []
    try:
        for port in ports:
            what = f"port {port.inside} of {name}"
            listener = host.listen(port.address, port.port, what)
            opened.append((listener, port.inside))
            taken.append(replace(port, port=listener.getsockname()[1]))
    except BaseException:
        for listener, _ in opened:
            listener.close()
        raise
    return tuple(taken), opened
