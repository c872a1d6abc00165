"""`bazaar take`: one stand of the catalogue, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bazaar.cli import output

if TYPE_CHECKING:
    from bazaar.spec import Secret


@click.command(name="take")
@click.argument("stand")
@click.option("--name", help="What to call the bazaar; the stand's name by default.")
@click.option("--replicas", type=click.IntRange(1, 100), default=1, help="How many.")
@click.option("--publish", "-p", multiple=True, help="8080 (loopback) or ADDRESS:PORT of the host.")
@click.option("--kernel", type=click.Choice(["own", "shared"]), help="Whose kernel it runs on.")
@click.option("--env", "-e", multiple=True, help="NAME=VALUE; NAME alone takes yours.")
@output.output_option
def command(
    stand: str,
    name: str | None,
    replicas: int,
    publish: tuple[str, ...],
    kernel: str | None,
    env: tuple[str, ...],
    output: str,
) -> int:
    """Run STAND of the catalogue (`bazaar stands`) as a bazaar of its own.

    `bazaar status`, `logs`, `exec` and `down` take its name like any other's.
    """
    from bazaar import spec
    from bazaar.cli import up
    from bazaar.errors import UsageError
    from bazaar.up import client

    called = name or stand
    there = client.last_wanted(called)
    if there is not None and [service.stand for service in there.services] != [stand]:
        raise UsageError(
            f"there is a bazaar '{called}' already, with other services",
            hint=f"choose another name: `bazaar take {stand} --name NAME`",
        )
    bazaar = spec.Bazaar(
        called,
        sites=[spec.Site("here")],
        services=[
            spec.Service(
                stand,
                stand=stand,
                replicas=replicas,
                publish=[int(place) if place.isdigit() else place for place in publish],
                kernel="own" if kernel == "own" else "shared" if kernel == "shared" else None,
                environment=dict(_variable(word) for word in env),
            )
        ],
    )
    return up.run(None, as_json=output == "json", wanted=spec.resolve(bazaar))


def _variable(word: str) -> tuple[str, str | Secret]:
    from bazaar.spec import Secret

    name, equals, value = word.partition("=")
    # Without a value it is the caller's own, which may be secret: it stays out of the state.
    return name, value if equals else Secret(env=name)
