"""`bazaar shield`: guard an interface against floods, see what it does, change whom it lets in."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import click

from bazaar.cli.groups import Group
from bazaar.cli.output import Progress, output_option, print_json, table
from bazaar.errors import MissingError, UsageError

if TYPE_CHECKING:
    from bazaar.shield.guard import Guard
    from bazaar.shield.settings import ShieldSpec

_PREFIX = "if-"
_TICK = 0.2  # seconds

_netns = click.option("--netns", metavar="NAME", help="The network namespace the interface is in.")
_shield = click.option(
    "--shield",
    "name",
    metavar="NAME",
    help="Which shield, as `status` names it, if there are more.",
)


@click.group(cls=Group)
def command() -> None:
    """Guard an interface against floods, before the kernel's network stack.

    Each source may send so many packets a second; who keeps sending more is blocked. What
    nobody answers for (packets to ports where nobody listens, fragments, new connections)
    shares a budget. The allow list is checked first.
    """


@command.command("on")
@click.argument("interface", metavar="IFACE")
@click.option("--rate", default="2000/s", show_default=True, help="Packets one source may send.")
@click.option(
    "--burst", type=int, help="Packets it may send at once.  [default: two seconds' worth]"
)
@click.option("--allow", "networks", multiple=True, metavar="CIDR", help="Never drop from there.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="PROTO/PORT",
    help="A served port, such as tcp/443.  [default: what listens there]",
)
@click.option("--block-for", default="60s", show_default=True, help="How long floods are shut out.")
@click.option("--dry-run", is_flag=True, help="Count what would be dropped, and drop nothing.")
@click.option("-d", "--detach", is_flag=True, help="Leave it at work and return; `off` ends it.")
@_netns
def on(
    interface: str,
    rate: str,
    burst: int | None,
    networks: tuple[str, ...],
    ports: tuple[str, ...],
    block_for: str,
    dry_run: bool,
    detach: bool,
    netns: str | None,
) -> None:
    """Stand at IFACE until Ctrl-C, and show what happens."""
    from bazaar.shield import guard, settings

    guard.need()
    spec = settings.ShieldSpec(
        rate=settings.rate(rate),
        burst=burst,
        allow=networks,
        block_seconds=settings.seconds(block_for),
        mode="dry-run" if dry_run else "on",
        ports=tuple(_port(text) for text in ports) or None,
    )
    shield = guard.attach(_name(interface, netns), spec, [interface], netns)
    progress = Progress()
    progress.done(_standing(shield, spec))
    if detach:
        shield.close()
        return
    try:
        _watch(shield, progress)
    finally:
        progress.clear()
        shield.detach()


@command.command("off")
@click.argument("interface", metavar="IFACE")
@_netns
def off(interface: str, netns: str | None) -> None:
    """Leave IFACE, and forget all counters and lists."""
    from bazaar.shield import guard

    guard.need()
    found = guard.find(_name(interface, netns))
    if found is None:
        raise MissingError(
            f"no shield was put at {interface} by `bazaar shield on`",
            hint="`bazaar shield status` lists the shields; a bazaar's own follows its description",
        )
    found.detach()


@command.command("mode")
@click.argument("mode", type=click.Choice(["on", "dry-run", "off"]))
@_shield
def mode_(mode: str, name: str | None) -> None:
    """Switch between dropping, only counting, and standing idle; nothing is loaded again."""
    with _one(name) as shield:
        shield.set_mode(mode)


@command.command("status")
@click.option("--site", help="Those at the edges of a bazaar's site that is a cluster.")
@click.option("--bazaar", help="Whose site, where several bazaars are up.")
@output_option
def status(site: str | None, bazaar: str | None, output: str) -> None:
    """Show all shields: where they stand, what they dropped, whom they block."""
    from bazaar.shield import guard, pinned

    if site is not None:
        _status_there(site, bazaar, as_json=output == "json")
        return
    if bazaar:
        raise click.UsageError("--bazaar goes with --site")
    guard.need()
    shown: list[dict[str, Any]] = []
    for name in pinned.names():
        found = guard.find(name)
        if found:
            with contextlib.closing(found):
                shown.append(_facts(found))
    if output == "json":
        print_json(shown)
    elif not shown:
        print("no shield is at work: `bazaar shield on IFACE`")
    else:
        print("\n\n".join(_page(facts) for facts in shown))


def _status_there(site: str, bazaar: str | None, *, as_json: bool) -> None:
    from bazaar.up import cluster_shield

    found = cluster_shield.status(site, bazaar)
    shown = [{"machine": name, **facts} for name, each in sorted(found.items()) for facts in each]
    if as_json:
        print_json(shown)
    elif not shown:
        print(f"no shield is at work in {site}: `shield:` in the description puts them up")
    else:
        print("\n\n".join(f"{facts['machine']}: {_page(facts)}" for facts in shown))


@command.command("block")
@click.argument("address", metavar="ADDR")
@click.option("--for", "length", metavar="TIME", help="Such as 10m.  [default: the shield's own]")
@_shield
def block(address: str, length: str | None, name: str | None) -> None:
    """Drop everything from an address or network for some time."""
    from bazaar.shield import settings

    seconds = settings.seconds(length) if length else None
    with _one(name) as shield:
        shield.block(address, seconds)


@command.command("unblock")
@click.argument("address", metavar="ADDR")
@_shield
def unblock(address: str, name: str | None) -> None:
    """Let a blocked address or network in again."""
    with _one(name) as shield:
        if not shield.unblock(address):
            raise MissingError(
                f"{address} is not blocked", hint="`bazaar shield status` lists who is"
            )


@command.command("allow")
@click.argument("network", metavar="CIDR")
@click.option("--remove", is_flag=True, help="Take it off the allow list again.")
@_shield
def allow(network: str, remove: bool, name: str | None) -> None:
    """Never drop anything from an address or network."""
    with _one(name) as shield:
        if not remove:
            shield.allow(network)
        elif not shield.disallow(network):
            raise MissingError(
                f"{network} is not on the allow list", hint="`bazaar shield status` shows it"
            )


def _watch(shield: Guard, progress: Progress) -> None:
    """Tick until Ctrl-C or a request to end; blocks are lines that stay."""
    stop = threading.Event()
    ends = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda _number, _frame: stop.set()) for number in ends]
    try:
        while not stop.wait(_TICK):
            tick = shield.tick()
            for item in tick.new:
                would = "would block" if shield.spec.mode == "dry-run" else "blocked"
                progress.done(f"{would} {item.source} for {item.left:.0f} s ({item.reason})")
            dropped = (
                f"would drop {tick.would_drop:,.0f}/s"
                if shield.spec.mode == "dry-run"
                else f"dropped {tick.dropped:,.0f}/s"
            )
            progress.step(f"passed {tick.passed:,.0f}/s   {dropped}")
    finally:
        for number, handler in zip(ends, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _one(name: str | None) -> Any:
    """The shield of that name, or the only one there is."""
    from bazaar.shield import guard, pinned

    guard.need()
    names = pinned.names()
    if name is None and len(names) > 1:
        raise UsageError(
            f"there are {len(names)} shields: {', '.join(map(_short, names))}",
            hint="say which one by --shield NAME",
        )
    chosen = next((item for item in names if name in {None, item, _short(item)}), None)
    found = guard.find(chosen) if chosen else None
    if found is None:
        what = f"there is no shield '{name}'" if name else "no shield is at work"
        raise MissingError(what, hint="`bazaar shield on IFACE` makes one, `status` lists them")
    with contextlib.closing(found):
        yield found


def _name(interface: str, netns: str | None) -> str:
    parts = [part for part in (netns, interface) if part]
    return _PREFIX + re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(parts))


def _short(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _port(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(tcp|udp)/(\d{1,5})", text)
    if not found:
        raise UsageError(f"'{text}' is no port", hint="such as tcp/443 or udp/53")
    return found[1], int(found[2])


def _standing(shield: Guard, spec: ShieldSpec) -> str:
    places = ", ".join(
        _place(item.interface, item.namespace, item.mode) for item in shield.attached
    )
    return f"shield {_short(shield.name)} {spec.mode}   {places}   {spec.rate}/s a source"


def _place(interface: str, namespace: str | None, mode: str) -> str:
    inside = f" in {namespace}" if namespace else ""
    slow = " (generic: the driver has no XDP)" if mode == "generic" else f" ({mode})"
    return f"{interface}{inside}{slow}"


def _facts(shield: Guard) -> dict[str, Any]:
    """A shield as `-o json` shows it."""
    counters = shield.counters()
    return {
        "name": _short(shield.name),
        "mode": shield.mode,
        "rate": shield.spec.rate,
        "interfaces": [
            {"name": item.interface, "namespace": item.namespace, "mode": item.mode}
            for item in shield.attached
        ],
        "passed": counters.passed,
        "allowed": counters.allowed,
        "dropped": counters.dropped,
        "would_drop": counters.would_drop,
        "allow": shield.allowed(),
        "blocked": [
            {"source": item.source, "reason": item.reason, "left": round(item.left, 1)}
            for item in shield.blocked()
        ],
    }


def _page(facts: dict[str, Any]) -> str:
    places = ", ".join(
        _place(item["name"], item["namespace"], item["mode"]) for item in facts["interfaces"]
    )
    dropped: dict[str, int] = facts["dropped"]
    would: dict[str, int] = facts["would_drop"]
    lines = [
        "   ".join(
            [
                facts["name"],
                facts["mode"],
                places or "at no interface",
                f"{facts['rate']}/s a source",
            ]
        ),
        f"passed {facts['passed']:,}   dropped {sum(dropped.values()):,}{_reasons(dropped)}",
    ]
    if any(would.values()):
        lines.append(f"would have dropped {sum(would.values()):,}{_reasons(would)}")
    if facts["allow"]:
        lines.append(f"allowed {', '.join(facts['allow'])}")
    if facts["blocked"]:
        rows = [
            (item["source"], item["reason"], f"{item['left']:.0f} s") for item in facts["blocked"]
        ]
        lines += ["", table(["blocked", "why", "left"], rows)]
    return "\n".join(lines)


def _reasons(counts: dict[str, int]) -> str:
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f" ({found})" if found else ""
