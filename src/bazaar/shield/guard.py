"""A shield at work: attached to interfaces, watched, changed while it runs.

Finding and blocking a flood is done by the program itself (`door`). What is left for user
space is slow and can stop without harm: ports that begin to be served, blocks that expired,
figures. A guard can be made again from what is pinned at any time.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from bazaar.errors import KernelError, MissingError, NetworkError, UsageError
from bazaar.shield import addresses, interfaces, pinned, ports, reports, tables
from bazaar.shield.reports import Attached, Blocked, Counters, Tick
from bazaar.shield.settings import Budgets, Mode, ShieldSpec

_SECOND = 1_000_000_000
_WINDOW = _SECOND // 2
# The door's clock moves in ticks of up to 10 ms: less depth than that would stop everybody.
_LEAST_DEPTH = 20_000_000
_SWEEP_EVERY, _PORTS_EVERY = 1.0, 1.0  # seconds
_FROM_SPEC, _BY_HAND = 1, 2
_CLOCK_MONOTONIC_COARSE = 6


def attach(
    name: str, spec: ShieldSpec, interfaces: Iterable[str] = (), namespace: str | None = None
) -> Guard:
    """The shield ``name`` with these settings, at these interfaces of the namespace.

    What is pinned under the name is taken over, with its counters and its block list; links
    to interfaces that are gone are cleared away. Raises NetworkError for an unknown
    interface, KernelError where the kernel has no XDP; then nothing new is left behind.
    """
    fresh = pinned.find(name) is None
    guard = Guard(pinned.ensure(name), spec)
    try:
        guard.pinned.about.namespace = namespace
        guard.configure(spec)
        guard.tidy()
        for interface in interfaces:
            guard.attach_interface(interface, namespace)
    except BaseException:
        if fresh:
            guard.detach()
        else:
            guard.close()
        raise
    return guard


def find(name: str) -> Guard | None:
    """The shield that is at work under this name, with the settings it has; None if none is."""
    found = pinned.find(name)
    if found is None:
        return None
    values = dict(found.about.settings)
    served = None if values.pop("watch_ports", True) else ()
    budgets = Budgets(**values.pop("budgets", {}))
    return Guard(found, ShieldSpec(**values, budgets=budgets, ports=served))


class Guard:
    """One shield. Not for several threads at once."""

    def __init__(self, shield: pinned.Pinned, spec: ShieldSpec) -> None:
        self.pinned = shield
        self.name = shield.name
        self.spec = spec
        self._served: list[int] = []
        self._counters = self.counters()
        self._ticked = time.monotonic()
        self._swept = self._looked = 0.0
        self._known: set[bytes] = set(self._raw_blocks())

    # --- settings ---

    def configure(self, spec: ShieldSpec) -> None:
        """Work by other settings from now on; nothing is loaded or attached again."""
        self.spec = spec
        values = asdict(replace(spec, allow=(), ports=None))
        del values["ports"], values["allow"]
        values["watch_ports"] = spec.ports is None
        self.pinned.refresh()
        self.pinned.about.settings = values
        self.pinned.remember()
        self._allow_all(spec.allow)
        self._write_budgets()
        self.serve(
            spec.ports if spec.ports is not None else ports.listening(self.pinned.about.namespace)
        )
        self._write_settings()

    def set_mode(self, mode: str) -> None:
        """``on``, ``dry-run`` (count, drop nothing) or ``off`` (attached, but idle)."""
        self.change(mode=mode)

    def change(self, **changes: Any) -> None:
        """Change some settings and leave the lists as they are."""
        self.pinned.refresh()
        self.spec = replace(self.spec, **changes)
        self.pinned.about.settings.update(changes)
        self.pinned.remember()
        self._write_settings()

    @property
    def mode(self) -> str:
        """What the door does now, as the kernel has it."""
        raw = self.pinned.maps["settings"].lookup(bytes(4)) or bytes(4)
        return Mode(tables.Settings.decode(raw).mode).text

    def serve(self, served: Iterable[tuple[str, int]]) -> None:
        """Name the ports that are served: (``tcp`` or ``udp``, port)."""
        words = [0] * (2 * tables.PORTS // 64)
        first = {"tcp": 0, "udp": tables.PORTS}
        for protocol, port in served:
            if protocol not in first or not 0 < port < tables.PORTS:
                raise UsageError(f"{protocol}/{port} is no port", hint="such as tcp/80, udp/53")
            bit = first[protocol] + port
            words[bit >> 6] |= 1 << (bit & 63)
        if words != self._served:
            # All words at once and each in one piece: no port that stays served is ever missing.
            self.pinned.maps["served"].update_batch(
                [
                    (struct.pack("=I", index), struct.pack("=Q", word))
                    for index, word in enumerate(words)
                ]
            )
            self._served = words

    def _write_settings(self) -> None:
        spec = self.spec
        gap = max(1, _SECOND // spec.rate)
        value = tables.Settings(
            mode=int(Mode.of(spec.mode)),
            lists=self._lists(),
            gap=gap,
            depth=max(gap * spec.depth, _LEAST_DEPTH),
            block=int(spec.block_seconds * _SECOND),
            window=_WINDOW,
            # As much again as it may send: a client that backs off never gets there.
            excess=max(spec.rate * _WINDOW // _SECOND, 4 * tables.SAMPLE),
        )
        self.pinned.maps["settings"].update(bytes(4), value.encode())

    def _mark_lists(self) -> None:
        """Say which lists hold anything, and leave what somebody else may have set meanwhile."""
        raw = self.pinned.maps["settings"].lookup(bytes(4))
        if raw is not None:
            value = tables.Settings.decode(raw)
            value.lists = self._lists()
            self.pinned.maps["settings"].update(bytes(4), value.encode())

    def _lists(self) -> int:
        # A block that the door makes at this very moment may miss its mark: then the flood goes
        # on being charged, and is blocked again.
        return sum(
            mark
            for name, mark in (
                ("allowed", tables.HAS_ALLOWED),
                ("networks", tables.HAS_NETWORKS),
                ("blocked", tables.HAS_BLOCKED),
            )
            if next(iter(self.pinned.maps[name].keys()), None) is not None
        )

    def _write_budgets(self) -> None:
        asked = self.spec.budgets
        # Ticks a second, by the clock that moves with them (clock_getres(2)).
        second = round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE)) << tables.TICK_BITS
        for kind, rate in (
            (tables.UNSERVED, asked.unserved),
            (tables.FRAGMENT, asked.fragments),
            (tables.ICMP, asked.icmp),
            (tables.SYN, asked.syn),
            (tables.STRAY, asked.stray),
            (tables.STRANGER, asked.strangers),
        ):
            gap = max(1, second // max(1, rate))
            value = tables.Budget(gap=gap, depth=second, next=0)
            self.pinned.maps["budgets"].update(struct.pack("=I", kind), value.encode())

    # --- who may come ---

    def allow(self, network: str) -> None:
        """Never drop anything from this address or network, and forget blocks of it."""
        asked = addresses.network(network)
        self.pinned.maps["allowed"].update(addresses.prefix(asked), struct.pack("=I", _BY_HAND))
        self._mark_lists()

    def disallow(self, network: str) -> bool:
        """Take an address or network off the allow list; False when it was not on it."""
        asked = addresses.network(network)
        found = self.pinned.maps["allowed"].delete(addresses.prefix(asked))
        self._mark_lists()
        return found

    def allowed(self) -> list[str]:
        """The networks on the allow list."""
        return sorted(addresses.unprefix(key) for key, _ in self.pinned.maps["allowed"].items())

    def _allow_all(self, wanted: Iterable[str]) -> None:
        """Have exactly these from the settings; what was allowed by hand stays."""
        table = self.pinned.maps["allowed"]
        keys = {addresses.prefix(addresses.network(item)) for item in wanted}
        mark = struct.pack("=I", _FROM_SPEC)
        for key in keys:
            table.update(key, mark)
        for key, value in list(table.items()):
            if value == mark and key not in keys:
                table.delete(key)

    def block(self, address: str, seconds: float | None = None) -> None:
        """Drop everything from an address or network for ``seconds`` (the settings' by default).

        The allow list is checked first: who is on it stays welcome.
        """
        length = self.spec.block_seconds if seconds is None else seconds
        if not 0 < length <= 30 * 86_400:
            raise UsageError(f"{length} s is no time to block for: above 0, at most 30 days")
        now = time.monotonic_ns()
        value = tables.Block(until=now + int(length * _SECOND), since=now, reason=tables.MANUAL)
        table, key = self._place(address)
        try:
            self.pinned.maps[table].update(key, value.encode())
        except KernelError as error:
            raise KernelError(
                f"{address} cannot be blocked: {error.message}", errno=error.errno, hint=error.hint
            ) from error
        self._known.add(key)
        self._mark_lists()

    def unblock(self, address: str) -> bool:
        """Let a source or network in again; False when it was not blocked."""
        table, key = self._place(address)
        found = self.pinned.maps[table].delete(key)
        if table == "blocked":
            self.pinned.maps["suspects"].delete(key)
        self._known.discard(key)
        self._mark_lists()
        return found

    def _place(self, address: str) -> tuple[str, bytes]:
        asked = addresses.network(address)
        single = asked.prefixlen == asked.max_prefixlen or (
            asked.version == 6 and asked.prefixlen == 64
        )
        if single:
            return "blocked", addresses.key(str(asked.network_address))
        return "networks", addresses.prefix(asked)

    def blocked(self) -> list[Blocked]:
        """Who is shut out now, the latest first."""
        now = time.monotonic_ns()
        found = [
            reports.blocked(addresses.text(key), value, now)
            for key, value in self._raw_blocks().items()
        ]
        for key, value in self.pinned.maps["networks"].items():
            found.append(reports.blocked(addresses.unprefix(key), value, now))
        return sorted((item for item in found if item.left > 0), key=lambda item: item.since)

    def _raw_blocks(self) -> dict[bytes, bytes]:
        return dict(self.pinned.maps["blocked"].items())

    # --- watching ---

    def counters(self) -> Counters:
        """All counters, summed over the CPUs."""
        return reports.counters(self.pinned.maps["counters"])

    def tick(self) -> Tick:
        """To be called several times a second: new blocks, expired ones, served ports, rates."""
        now, before = time.monotonic(), self._counters
        counters = self._counters = self.counters()
        passed = max(now - self._ticked, 1e-6)
        self._ticked = now
        new, expired = self._sweep(now, counters.blocks != before.blocks)
        if self.spec.ports is None and now - self._looked >= _PORTS_EVERY:
            self._looked = now
            with contextlib.suppress(NetworkError):  # the namespace is being taken away
                self.serve(ports.listening(self.pinned.about.namespace))
        return Tick(
            (counters.passed - before.passed) / passed,
            (counters.total_dropped - before.total_dropped) / passed,
            (counters.total_would_drop - before.total_would_drop) / passed,
            new,
            expired,
        )

    def _sweep(self, now: float, changed: bool) -> tuple[tuple[Blocked, ...], int]:
        """Find new blocks, remove expired ones; seldom when there is nothing to find."""
        if not changed and (now - self._swept < _SWEEP_EVERY or not self._known):
            return (), 0
        moment = time.monotonic_ns()
        found = self._raw_blocks()
        shown = {
            key: reports.blocked(addresses.text(key), value, moment) for key, value in found.items()
        }
        old = [key for key, item in shown.items() if item.left <= 0]
        # Between reading and deleting the door may have blocked one again: then it is dropped
        # by its bucket, and blocked once more.
        self.pinned.maps["blocked"].delete_batch(old)
        new = tuple(item for key, item in shown.items() if key not in self._known and item.left > 0)
        self._known = set(found) - set(old)
        expired = len(old) + self._sweep_networks(moment)
        if old:
            self._mark_lists()
        # What takes long is done seldom.
        self._swept = now + 20 * (time.monotonic() - now)
        return new, expired

    def _sweep_networks(self, moment: int) -> int:
        table = self.pinned.maps["networks"]
        old = [key for key, value in table.items() if tables.Block.decode(value).until <= moment]
        for key in old:
            table.delete(key)
        if old:
            self._mark_lists()
        return len(old)

    # --- where the door stands ---

    @property
    def attached(self) -> tuple[Attached, ...]:
        """The interfaces it stands at."""
        return interfaces.standing(self.pinned)

    def attach_interface(self, interface: str, namespace: str | None = None) -> Attached:
        """Stand at one more interface: native XDP, or generic where the driver has none."""
        return interfaces.attach(self.pinned, interface, namespace)

    def detach_interface(self, interface: str, namespace: str | None = None) -> bool:
        """Leave an interface; False when the door did not stand there."""
        return interfaces.detach(self.pinned, interface, namespace)

    def tidy(self) -> None:
        """Give links of an older version this program; forget those of interfaces gone."""
        interfaces.tidy(self.pinned)

    def detach(self) -> None:
        """Leave all interfaces and take everything away: lists, counters, pins."""
        for key in list(self.pinned.about.links):
            interfaces.unlink(self.pinned, key)
        self.pinned.remove()

    def close(self) -> None:
        """Let go of it; the door stays where it stands, working."""
        self.pinned.close()


def need() -> None:
    """Raise MissingError where this machine cannot have a shield at all."""
    if os.geteuid() != 0:
        raise MissingError("a shield needs root", hint="run it with sudo")
