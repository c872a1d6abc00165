"""`bazaar status`: what is up, how it is, and what the probes and the shield see."""

from __future__ import annotations

import time
from typing import Any

import click

from bazaar.cli import output

LONGEST_WHY = 60  # characters of a reason in a cell


@click.command(name="status")
@click.argument("bazaar", required=False)
@click.option("--watch", "-w", is_flag=True, help="Show it again every second.")
@click.option("--short", "-s", is_flag=True, help="One line a probe, without its maps.")
@output.output_option
def command(bazaar: str | None, watch: bool, short: bool, output: str) -> int:
    """Show sites, services, replicas, probes and the shield of BAZAAR (a name or its file)."""
    from bazaar.cli.output import print_json
    from bazaar.up import client

    name = client.the_one(bazaar, "`bazaar status NAME`")
    while True:
        status = client.call(name, "status")
        if output == "json":
            print_json(status)
        else:
            if watch:
                print("\033[H\033[2J", end="")
            print(render(status, short=short), flush=True)
        if not watch:
            return 0
        time.sleep(1)


def render(status: dict[str, Any], *, short: bool = False) -> str:
    """The whole status as text; ``short`` without what probes have gathered."""
    parts = [_headline(status), _sites(status), services_table(status), _problems(status)]
    heads = [_probe_head(probe) for probe in status["probes"]]
    if short:
        parts.append("\n".join(heads))
    else:
        parts += [
            head if probe["problem"] else f"{head}\n{probe['text'].rstrip()}"
            for head, probe in zip(heads, status["probes"], strict=True)
        ]
    return "\n\n".join(part for part in parts if part)


def services_table(status: dict[str, Any]) -> str:
    """One line a service: its address, its replicas by site, how fast they were up."""
    sites = [site["name"] for site in status["sites"]]
    header = ["SERVICE", "ADDRESS", "HEALTHY", *(site.upper() for site in sites)]
    header += ["KERNEL", "READY IN", "SEEN BY PROBES"]
    rows: list[list[str]] = []
    for service in status["services"]:
        address = service["url"] or (
            f"{service['address']}:{service['port']}" if service["address"] else "-"
        )
        per_site = [_site_cell(service, site) for site in sites]
        rows.append(
            [
                service["name"],
                address.rstrip("/") if service["url"] else address,
                f"{service['healthy']}/{service['wanted']}",
                *per_site,
                service["engine"],
                _ready(service),
                _seen(service, status["probes"]),
            ]
        )
        rows += [
            ["", f"published {address}"] + [""] * (len(header) - 2)
            for address in service["published"]
        ]
    return output.table(header, rows)


def missing_table(status: dict[str, Any]) -> str:
    """What was asked for and is not there, one line each; empty where nothing is missing."""
    lines = [
        *status.get("missing", ()),
        *(f"probe {one['name']}: {one['problem']}" for one in status["probes"] if one["problem"]),
    ]
    shield = status["shield"]
    if shield and shield["problem"]:
        lines.append(f"shield: {shield['problem']}")
    if not lines:
        return ""
    return output.table(["MISSING"], [["; ".join(line.splitlines())] for line in lines])


def _seen(service: dict[str, Any], probes: list[dict[str, Any]]) -> str:
    """What the probes see of a service; those that have a problem see nothing."""
    if not probes:
        return "-"
    blind = [probe for probe in probes if probe["problem"]]
    if len(blind) == len(probes):
        why = blind[0]["problem"].splitlines()[0]
        return f"nothing ({why if len(why) <= LONGEST_WHY else why[: LONGEST_WHY - 1] + '…'})"
    without = ", ".join(probe["name"] for probe in blind)
    return f"{service['seen']}, but not by {without}" if blind else service["seen"]


def _site_cell(service: dict[str, Any], site: str) -> str:
    rows = [row for row in service["replicas"] if row["site"] == site]
    return f"{sum(row['healthy'] for row in rows)}/{len(rows)}" if rows else "-"


def _ready(service: dict[str, Any]) -> str:
    times = [row["start_ms"] for row in service["replicas"] if row["start_ms"] is not None]
    return " ".join(f"{took:.0f}" for took in times) + " ms" if times else "-"


def _headline(status: dict[str, Any]) -> str:
    services = status["services"]
    healthy = sum(service["healthy"] for service in services)
    wanted = sum(service["wanted"] for service in services)
    words = [status["bazaar"], f"up {duration(status['seconds'])}", f"{healthy}/{wanted} replicas"]
    state = status["supervisor"]["state"]
    if state != "ready":
        words.append(state)
    shield = status["shield"]
    if shield is None and state == "adopting":
        pass  # it is at work, and not taken over yet
    elif shield is None:
        words.append("no shield")
    else:
        words.append(
            f"shield {shield['mode']}, {len(shield['blocked'])} blocked, "
            f"{shield['passed']:,} passed, {shield['dropped']:,} dropped"
        )
    return "   ".join(words)


def _sites(status: dict[str, Any]) -> str:
    rows = [
        [site["name"], site["provider"], _place(site), "yes" if site["healthy"] else "no"]
        for site in status["sites"]
    ]
    return output.table(["SITE", "PROVIDER", "PLACE", "HEALTHY"], rows)


def _place(site: dict[str, Any]) -> str:
    cluster = site["cluster"]
    return f"cluster {cluster}" if cluster else site["subnet"] or "-"


def _problems(status: dict[str, Any]) -> str:
    lines = [
        f"{row['id']}  {row['phase']}  {row['problem']}"
        for service in status["services"]
        for row in service["replicas"]
        if row["problem"]
    ]
    shield = status["shield"]
    if shield and shield["problem"]:
        lines.append(f"shield  {shield['problem']}")
    return "\n".join(lines)


def _probe_head(probe: dict[str, Any]) -> str:
    attached = probe["program"].split("{")[0].strip()
    head = f"probe {probe['name']}   {attached}"
    if probe["problem"]:
        return f"{head}\n{probe['problem']}"
    cost = "" if probe["nanoseconds"] is None else f", {probe['nanoseconds']:.0f} ns each"
    runs = "" if probe["runs"] is None else f"{probe['runs']:,} runs, "
    return f"{head}   {runs}{probe['lost']} lost{cost}"


def duration(seconds: float) -> str:
    """3 m 12 s, as people say it."""
    whole = int(seconds)
    parts = [
        (whole // 86400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "m"),
        (whole % 60, "s"),
    ]
    shown = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0 s"
