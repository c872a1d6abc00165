"""What a shield is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from bazaar.errors import UsageError


class Mode(IntEnum):
    """What the door does with what it finds; the numbers stand in its configuration map."""

    OFF = 0  # looks at nothing
    DRY_RUN = 1  # counts what it would drop, and passes it
    ON = 2

    @property
    def text(self) -> str:
        """As people write it: on, dry-run, off."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def of(cls, text: str) -> Mode:
        """The mode of a word; UsageError lists the words."""
        for mode in cls:
            if mode.text == text:
                return mode
        raise UsageError(f"'{text}' is no mode of the shield", hint="one of on, dry-run, off")


@dataclass(frozen=True, slots=True)
class Budgets:
    """Packets a second, from all sources together, of what nobody vouches for.

    A budget is felt only while more than that arrives: then the rest is dropped.
    """

    unserved: int = 1_000  # to ports where nobody listens, and protocols nobody speaks
    fragments: int = 1_000  # pieces of IP packets: they tell no port
    icmp: int = 1_000
    syn: int = 5_000  # new connections from sources without one
    stray: int = 20_000  # TCP from sources that no connection is known of
    strangers: int = 20_000  # datagrams to served ports, from sources never seen


@dataclass(frozen=True, slots=True)
class ShieldSpec:
    """Rates are packets a second; ``burst`` (packets) is two seconds' worth by default.

    ``ports`` are the pairs (protocol, port) that are served; None: what listens in the
    namespace, looked up again all the time.
    """

    rate: int = 2_000  # from one source; a source is an IPv4 address or an IPv6 /64
    burst: int | None = None
    allow: tuple[str, ...] = ()  # addresses and networks that are never dropped
    block_seconds: float = 60.0
    mode: str = "on"  # on | dry-run | off
    ports: tuple[tuple[str, int], ...] | None = None
    budgets: Budgets = Budgets()

    def __post_init__(self) -> None:
        Mode.of(self.mode)
        if not 1 <= self.rate <= 1_000_000_000:
            raise UsageError(f"rate {self.rate} is not between 1 and 1000000000 packets a second")
        if self.burst is not None and self.burst < 1:
            raise UsageError(f"burst {self.burst} is not above 0 packets")
        if not 0 < self.block_seconds <= 30 * 86_400:
            raise UsageError(f"{self.block_seconds} s is no time to block for: above 0, 30 days")

    @property
    def depth(self) -> int:
        """How many packets a source may send at once."""
        return self.burst if self.burst is not None else 2 * self.rate


def rate(text: str) -> int:
    """Packets a second from ``2000/s``, ``120000/min`` or a bare number."""
    found = re.fullmatch(r"(\d{1,12})\s*(?:/\s*(s|sec|second|m|min|minute))?", text.strip())
    if not found:
        raise UsageError(f"'{text}' is no rate", hint="packets a second, such as 2000/s")
    count = int(found[1])
    return max(1, count // 60) if (found[2] or "s").startswith("m") else count


def seconds(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``10m``, ``2h`` or ``1d``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|min|h|d)?", text.strip())
    if not found:
        raise UsageError(f"'{text}' is no length of time", hint="such as 90s, 10m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[(found[2] or "s")[0]]
