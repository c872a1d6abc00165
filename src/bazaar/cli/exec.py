"""`bazaar exec`: a command inside a replica or container."""

from __future__ import annotations

import sys

import click


@click.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--bazaar", help="Whose replica, where several bazaars are up.")
@click.option("--interactive", "-i", is_flag=True, help="Pass standard input on.")
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
@click.option("--env", "-e", multiple=True, help="NAME=VALUE for its environment.")
@click.option("--user", "-u", default=None, help="Run it as this user.")
@click.option("--workdir", "-w", default=None, help="Run it there.")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    bazaar: str | None,
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    name: str,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND inside NAME: a service (its first replica), SERVICE/SITE/N, or a container.

    Its exit code is ours.
    """
    from bazaar.run import containers
    from bazaar.up import cluster_pods, selection

    container = selection.containers((name,), bazaar)[0]
    words = command[1:] if command[0] == "--" else command
    tty = tty and sys.stdin.isatty()
    if cluster_pods.is_pod(container):
        cluster_pods.refuse(env=env, user=user, workdir=workdir)
        return cluster_pods.execute(container, words, tty=tty, interactive=interactive)
    return containers.execute(
        container.id,
        words,
        tty=tty,
        interactive=interactive,
        environment=tuple(_pair(word) for word in env),
        user=user,
        working_directory=workdir,
    )


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise click.BadParameter(f"'{word}' is not NAME=VALUE", param_hint="--env")
    return name, value
