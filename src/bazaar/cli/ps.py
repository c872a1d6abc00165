"""`bazaar ps`: containers, replicas included."""

from __future__ import annotations

import time

import click

from bazaar.cli.output import output_option, print_json, table
from bazaar.model.container import ContainerState


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those that ended, too.")
@click.option("-q", "--quiet", is_flag=True, help="Names alone.")
@output_option
def command(everything: bool, quiet: bool, output: str) -> int:
    """List containers that run."""
    from bazaar.run import containers

    found = [state for state in containers.listing() if everything or state.status != "stopped"]
    if output == "json":
        print_json([_row(state) for state in found])
        return 0
    if quiet:
        for state in found:
            print(state.name)
        return 0
    # A replica's name is SERVICE/SITE/N: two bazaars can have the same.
    bazaars = [dict(state.labels).get("bazaar", "-") for state in found]
    several = len(set(bazaars) - {"-"}) > 1
    rows: list[tuple[object, ...]] = []
    for state, bazaar in zip(found, bazaars, strict=True):
        about = containers.about(state.id)
        ports = ", ".join(about.get("ports", ()))
        names = (state.name, bazaar) if several else (state.name,)
        image = about.get("image", "")
        rows.append((*names, image, state.engine, _status(state), state.pid or "-", ports))
    names = ("NAME", "BAZAAR") if several else ("NAME",)
    print(table((*names, "IMAGE", "KERNEL", "STATUS", "PID", "PORTS"), rows))
    return 0


def _row(state: ContainerState) -> dict[str, object]:
    from bazaar.run import containers

    about = containers.about(state.id)
    return {
        "id": state.id,
        "name": state.name,
        "image": about.get("image", ""),
        "command": about.get("command", []),
        "engine": state.engine,
        "status": state.status,
        "pid": state.pid,
        "exit_code": state.exit_code,
        "started_at": state.started_at,
        "labels": dict(state.labels),
        "ports": about.get("ports", []),
    }


def _status(state: ContainerState) -> str:
    if state.status == "running":
        return f"up {_age(time.time() - state.started_at)}"
    if state.status == "stopped":
        return "ended" if state.exit_code is None else f"exit {state.exit_code}"
    return state.status


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
