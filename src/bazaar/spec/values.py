"""The small languages inside a bazaar's description: names, sizes, durations, addresses.

Each function takes what the user wrote, whatever its type, and returns the normal form, or
raises ValueError whose message gives the value and what would be accepted. A normal form is
its own normal form.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Iterable
from typing import Any, cast

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
MEMORY = r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?B?|B)?$"
DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
RATE = r"^[0-9]+(\.[0-9]+)?/(s|m)$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
ADDRESS_AND_PORT = r"^(([0-9]{1,3}\.){3}[0-9]{1,3}:)?[0-9]{1,5}$"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def show(value: Any) -> str:
    """A value as messages quote it, cut to a line."""
    if isinstance(value, str):
        text = "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in value[:60]) + "'"
        return text if len(value) <= 60 else text[:-1] + "…'"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    try:
        return json.dumps(value)[:60]
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"


def meant(wrong: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where one of ``known`` is near, else nothing."""
    import difflib

    near = difflib.get_close_matches(wrong[:60], list(known), 1)
    return f" Did you mean '{near[0]}'?" if near else ""


def label(value: Any) -> str:
    """A name: a DNS label (RFC 1123), since names become host names and addresses."""
    if isinstance(value, str) and re.fullmatch(LABEL, value):
        return value
    raise ValueError(
        f"{show(value)} is no name: up to 63 lower-case letters, digits and '-', "
        "with a letter or digit at both ends"
    )


def text(value: Any) -> str:
    """Plain text without NUL, which no program can be given."""
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text")
    if "\0" in value:
        raise ValueError("text with a NUL character, which no program can be given")
    return value


def line(value: Any) -> str:
    """Text of one line that is not empty."""
    checked = text(value)
    if not checked.strip() or "\n" in checked:
        raise ValueError(f"{show(value)} is not one line of text")
    return checked


def whole(value: Any, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    number = isinstance(value, int) and not isinstance(value, bool) and value > high
    above = f"above {low - 1}" if not number else f"from {low} to {high}"
    raise ValueError(f"{show(value)} is not a whole number {above}")


def port(value: Any) -> int:
    """A TCP port, 1 to 65535."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
        return value
    raise ValueError(f"{show(value)} is not a port, a whole number from 1 to 65535")


def cores(value: Any) -> float:
    """A number of processor cores: 0.5, 2."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 4096:
        return float(value)
    raise ValueError(f"{show(value)} is not a number of cores above 0, such as 0.5 or 2")


def memory_bytes(value: str) -> int:
    """``256M`` in bytes; units are powers of 1024, as with `docker run --memory`."""
    match = re.fullmatch(r"([0-9.]+) ?([KMGT]?)i?B?", value)
    if match is None:
        raise ValueError(f"{show(value)} is not a size such as 256M or 1G")
    return int(float(match[1]) * _UNITS[match[2]])


def memory(value: Any) -> str:
    """A size of memory; a bare number counts bytes. At least 4M, less starts no program."""
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(written, str) or len(written) > 20 or not re.fullmatch(MEMORY, written):
        raise ValueError(f"{show(value)} is not a size of memory such as 256M or 1G")
    size = memory_bytes(written)
    if not 4 << 20 <= size <= 1 << 50:
        raise ValueError(f"{show(value)} is not a size of memory from 4M to 1024T")
    for unit in "TGMK":
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def duration_seconds(value: str) -> float:
    """``60s`` in seconds."""
    match = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", value)
    if match is None:
        raise ValueError(f"{show(value)} is not a duration such as 500ms, 60s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def duration(value: Any) -> str:
    """A length of time up to a day, above 0; a bare number counts seconds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    written = f"{value}s" if number else value
    if isinstance(written, str) and len(written) <= 20 and re.fullmatch(DURATION, written):
        seconds = duration_seconds(written)
        if 0.001 <= seconds <= 86400:
            whole = round(seconds * 1000)  # milliseconds; what is finer nobody keeps
            return f"{whole}ms" if whole % 1000 else f"{whole // 1000}s"
    raise ValueError(f"{show(value)} is not a duration such as 500ms, 60s or 5m, up to 24h")


def rate_per_second(value: str) -> float:
    """``2000/s`` as packets a second."""
    match = re.fullmatch(r"([0-9.]+)/(s|m)", value)
    if match is None:
        raise ValueError(f"{show(value)} is not a rate such as 2000/s")
    return float(match[1]) / _SECONDS[match[2]]


def rate(value: Any) -> str:
    """Packets in a time, ``2000/s`` or ``600/m``; a bare number counts per second."""
    number = isinstance(value, int) and not isinstance(value, bool)
    written = f"{value}/s" if number else value
    if isinstance(written, str) and len(written) <= 20 and re.fullmatch(RATE, written):
        amount, unit = written.split("/")
        if 0 < rate_per_second(written) <= 100_000_000:
            return f"{float(amount):.15g}/{unit}"
    raise ValueError(f"{show(value)} is not a rate above 0 such as 2000/s")


def network(value: Any) -> str:
    """An IPv4 network, ``10.44.0.0/16``."""
    try:
        found = ipaddress.IPv4Network(value) if isinstance(value, str) and "/" in value else None
    except ValueError as error:
        raise ValueError(f"{show(value)} is not a network such as 10.44.0.0/16: {error}") from None
    if found is None:
        raise ValueError(f"{show(value)} is not a network such as 10.44.0.0/16")
    return str(found)


def networks(value: Any) -> str:
    """A cluster's range: an IPv4 network, for dual stack one of IPv6 after a comma."""
    words = value.split(",") if isinstance(value, str) else [value]
    first = network(words[0])
    if len(words) == 1:
        return first
    try:
        second = ipaddress.IPv6Network(words[1].strip()) if len(words) == 2 else None
    except ValueError:
        second = None
    if second is None:
        raise ValueError(f"{show(value)} is not '10.244.0.0/16' or '10.244.0.0/16,fd00:1::/56'")
    return f"{first},{second}"


def address(value: Any) -> str:
    """An IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError(f"{show(value)} is not an IPv4 address") from None


def bazaar_subnet(value: Any) -> str:
    """The network of a whole bazaar: a private /16, of which each site gets a /24."""
    return _private(network(value), 16, "10.44.0.0/16")


def site_subnet(value: Any) -> str:
    """The network of one site: a private /24."""
    return _private(network(value), 24, "10.44.1.0/24")


def _private(value: str, prefix: int, example: str) -> str:
    found = ipaddress.IPv4Network(value)
    if found.prefixlen != prefix or not found.is_private or found.is_loopback:
        raise ValueError(f"{show(value)} is not a private network of /{prefix} such as {example}")
    return value


def allowed(value: Any) -> str:
    """An address or network that a shield never blocks, IPv4 or IPv6."""
    try:
        return str(ipaddress.ip_network(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError(
            f"{show(value)} is not an address or network such as 192.0.2.7 or 192.0.2.0/24"
        ) from None


def published(value: Any) -> str:
    """Where the host answers: ``8080`` is loopback only, ``0.0.0.0:8080`` everywhere."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"127.0.0.1:{port(value)}"
    if isinstance(value, str) and re.fullmatch(ADDRESS_AND_PORT, value):
        address, _, number = value.rpartition(":")
        try:
            return f"{ipaddress.IPv4Address(address or '127.0.0.1')}:{port(int(number))}"
        except ValueError:
            pass
    raise ValueError(
        f"{show(value)} is not a port of the host such as 8080 (loopback) or 0.0.0.0:8080"
    )


def inside(value: Any) -> str:
    """An absolute path inside a container, without ``..`` and not the root itself."""
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        parts = value.split("/")
        normal = posixpath.normpath("/" + value.lstrip("/"))
        if ".." not in parts and normal != "/" and len(value) < 4096:
            return normal
    raise ValueError(f"{show(value)} is not an absolute path inside the container, such as /data")


def variable(value: Any) -> str:
    """The name of an environment variable."""
    if isinstance(value, str) and re.fullmatch(VARIABLE, value) and len(value) < 256:
        return value
    raise ValueError(f"{show(value)} is not a variable's name: letters, digits and '_'")


def command(value: Any) -> tuple[str, ...]:
    """A command: a list of words, or one line that is split as a shell would, without one."""
    if isinstance(value, str):
        import shlex

        try:
            words = shlex.split(text(value))
        except ValueError as error:
            raise ValueError(f"{show(value)} is not a command: {str(error).lower()}") from None
    elif isinstance(value, list | tuple):
        items = cast(list[Any], value)
        words = [str(item) if type(item) in (int, float) else text(item) for item in items]
    else:
        raise ValueError(f"{show(value)} is not a command: one line, or a list of words")
    if not words or not words[0]:
        raise ValueError("an empty command; leave it out for the image's own")
    return tuple(words)
