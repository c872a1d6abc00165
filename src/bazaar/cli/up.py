"""`bazaar up`: read, plan, apply, wait until healthy, print the addresses."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from bazaar.cli import output

if TYPE_CHECKING:
    from bazaar.model.container import Image
    from bazaar.spec.resolved import ResolvedBazaar
    from bazaar.up.cluster_request import Request
    from bazaar.up.plan import Planned


PATIENCE = 3.0  # seconds that what is not healthy at the end is waited for


@click.command(name="up")
@click.argument("file", required=False)
@click.option(
    "--yes", "-y", is_flag=True, help="Answer yes to what is asked; local sites ask nothing."
)
@output.output_option
def command(file: str | None, yes: bool, output: str) -> int:
    """Make the bazaar of FILE real on this machine; run it again after a change.

    FILE is a YAML or Python description; it can be left out where one bazaar is up.
    """
    del yes  # what costs money or destroys data asks; no local change does
    return run(file, as_json=output == "json")


def run(file: str | None, *, as_json: bool, wanted: ResolvedBazaar | None = None) -> int:
    """The whole of `up`; `take` comes here too, with a bazaar of its own making."""
    from bazaar.cli import plan as plan_command
    from bazaar.host import paths
    from bazaar.host.files import lock
    from bazaar.up import client, machine
    from bazaar.up.plan import plan

    began = time.monotonic()
    requests: list[Request] = []
    if wanted is None:
        wanted, requests = plan_command.read(file)
    client.need_root()
    machine.check_space()
    machine.check_certificates(wanted)
    progress = output.Progress()
    secrets = client.read_secrets(wanted)
    with lock(paths.state() / "bazaars" / f"{wanted.name}.lock", "up"):
        missing = machine.prepare(wanted, progress.step)
        progress.clear()
        current = client.current(wanted.name)
        machine.check_subnets(wanted, current.subnet)
        changes = plan(wanted, current, secrets)
        there = plan_command.on_clusters(wanted, current.applied, secrets, requests)
        changes += there.changes
        if not as_json:
            plan_command.show(wanted, changes, sys.stderr if changes else sys.stdout)
        if changes:
            machine.check_places(wanted)
            images = _images(wanted, progress)
            before = current.applied
            problems = _bring_about(wanted, before, secrets, requests, images, there, progress)
        else:
            problems = [*there.problems, *there.lost.values()]
    return _report(wanted.name, problems, missing, began, changed=bool(changes), as_json=as_json)


def _bring_about(
    wanted: ResolvedBazaar,
    applied: ResolvedBazaar | None,
    secrets: dict[str, dict[str, str]],
    requests: list[Request],
    images: dict[str, Image],
    planned: Planned,
    progress: output.Progress,
) -> list[str]:
    """Clusters first, then what balances over them, then what nothing leads to any more."""
    if not (wanted.clusters or (applied and applied.clusters)):
        return _apply(wanted, secrets, {}, progress)
    from bazaar.up import cluster_services

    known, problems = cluster_services.apply(
        wanted, secrets, requests, planned.lost, images, progress.step
    )
    progress.clear()
    problems += _apply(wanted, secrets, known, progress)
    if not problems:
        cluster_services.clear(wanted, applied, progress.step)
        progress.clear()
    return problems


def _images(wanted: ResolvedBazaar, progress: output.Progress) -> dict[str, Image]:
    """Every image the services need, made or pulled; two at a time, as there is little else."""
    from bazaar.run import images

    found: dict[str, Image] = {}
    references = list(dict.fromkeys(service.image for service in wanted.services))

    def ensure(reference: str) -> Image:
        return images.ensure(reference, lambda text: progress.step(f"Images   {text}"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        for image in pool.map(ensure, references):
            took = "cached" if image.cached else f"{image.seconds:.1f} s"
            progress.done(f"Images   {image.reference}  {output.size(image.size)}  {took}")
            found[image.reference] = image
    return found


def _apply(
    wanted: ResolvedBazaar,
    secrets: dict[str, dict[str, str]],
    clusters: dict[str, Any],
    progress: output.Progress,
) -> list[str]:
    from bazaar.spec.resolved import to_json
    from bazaar.up import client

    client.ensure_supervisor(wanted.name)
    shown: set[str] = set()

    def on_event(event: dict[str, Any]) -> None:
        line = _event_line(event)
        if line and line not in shown:
            shown.add(line)
            progress.done(line)

    parameters = {"wanted": to_json(wanted), "secrets": secrets, "clusters": clusters}
    try:
        return client.call(wanted.name, "apply", parameters, on_event, timeout=None)
    except KeyboardInterrupt:
        progress.done(
            "The supervisor goes on; `bazaar status` shows how far it is, `bazaar down` ends it."
        )
        raise


def _event_line(event: dict[str, Any]) -> str:
    """One event of the supervisor as a line; nothing for what is not worth one."""
    kind, name = str(event["kind"]), event["name"]
    label = {"site": "Site", "replica": "Start", "probe": "Probe", "shield": "Shield"}[kind]
    if event.get("problem"):
        return f"{label:<8} {name}  {output.colour(event['problem'], 'yellow', sys.stderr)}"
    if kind == "replica":
        if event["phase"] != "healthy" or event["adopted"]:
            return ""
        return f"{label:<8} {name}  {event['engine']}  {event['start_ms'] / 1000:.2f} s"
    return f"{label:<8} {name}  {event['seconds']:.2f} s"


def _unhealthy(status: dict[str, Any]) -> list[str]:
    """What does not answer though nothing was to change, in sentences."""
    return [
        f"{service['name']}: {service['healthy']} of {service['wanted']} replicas are healthy"
        + "".join(
            f"\n        {r['id']}: {r['problem']}" for r in service["replicas"] if r["problem"]
        )
        for service in status["services"]
        if service["healthy"] < service["wanted"]
    ]


def _report(
    bazaar: str,
    problems: list[str],
    missing: list[str],
    began: float,
    *,
    changed: bool,
    as_json: bool,
) -> int:
    from bazaar.cli import status as status_command
    from bazaar.up import client

    status = client.call(bazaar, "status")
    deadline = time.monotonic() + PATIENCE
    # What an `up` that was killed began may have come just now.
    while not problems and _unhealthy(status) and time.monotonic() < deadline:
        time.sleep(0.1)
        status = client.call(bazaar, "status")
    status["missing"] = missing
    took = time.monotonic() - began
    if as_json:
        output.print_json(status | {"seconds_up": round(took, 3), "changed": changed})
    else:
        print(status_command.services_table(status))
        if lacking := status_command.missing_table(status):
            print(f"\n{lacking}")
    unhealthy = _unhealthy(status)
    problems = problems or unhealthy
    for problem in problems:
        print(f"bazaar: {problem}", file=sys.stderr)
    if unhealthy:
        print("        `bazaar logs` says more; it is tried again and again", file=sys.stderr)
    if problems:
        return 1
    if changed and not as_json:
        print(f"Up in {took:.1f} s.  bazaar status, bazaar drill all, bazaar down", file=sys.stderr)
    return 0
