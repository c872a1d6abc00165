"""`bazaar run`: one container of an image, in the foreground or detached, as docker runs it."""

from __future__ import annotations

from typing import Any

import click


@click.command(context_settings={"help_option_names": ["--help"], "allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Pass stdin on, to its end.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print its name.")
@click.option(
    "--rm/--no-rm", "remove", default=True, help="Remove it when it ends; detached ones stay."
)
@click.option("--name", metavar="NAME", help="Its name; made up when left out.")
@click.option(
    "-v",
    "--volume",
    "volumes",
    multiple=True,
    metavar="SOURCE:TARGET[:ro]",
    help="A path or named volume.",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="KEY=VALUE,…",
    help="type=, source=, target=, readonly.",
)
@click.option("--tmpfs", multiple=True, metavar="TARGET", help="An empty directory in memory.")
@click.option(
    "-e",
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable; no value: ours.",
)
@click.option(
    "--env-file",
    "env_files",
    multiple=True,
    metavar="FILE",
    help="Variables, one NAME=VALUE a line.",
)
@click.option("-w", "--workdir", metavar="PATH", help="The working directory inside.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="By name or number.")
@click.option("-h", "--hostname", metavar="NAME", help="Its host name.")
@click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint.")
@click.option(
    "--engine",
    type=click.Choice(["gvisor", "shared"]),
    default="gvisor",
    show_default=True,
    help="A kernel of its own, or the host's.",
)
@click.option("-m", "--memory", metavar="BYTES", help="At most so much memory: 512m, 2g.")
@click.option(
    "--cpus", type=click.FloatRange(min=0.01), metavar="CORES", help="At most so many cores: 0.5."
)
@click.option(
    "--pids-limit", type=click.IntRange(min=1), metavar="COUNT", help="At most so many processes."
)
@click.option(
    "--network",
    default="bridge",
    show_default=True,
    metavar="none|bridge|NAMESPACE",
    help="bridge has a way out; or a network namespace of yours.",
)
@click.option("--read-only", is_flag=True, help="The root cannot be written to.")
@click.option(
    "--pull",
    type=click.Choice(["missing", "always", "never"]),
    default="missing",
    help="When to get the image.",
)
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
def command(**given: Any) -> int:
    """Run IMAGE as a container with a kernel of its own.

    IMAGE: deb://bookworm?packages=python3, a registry's (alpine, localhost:5000/x:tag),
    oci:DIR or dir:PATH. The exit code is the command's own; 125: the engine's trouble, 126: the
    command is no program, 127: it is not there, 137: killed, or out of memory.
    """
    from bazaar.cli import run_request

    return run_request.execute(run_request.Request(**given))
