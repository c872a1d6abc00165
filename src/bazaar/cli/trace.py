"""`bazaar trace`: run a trace program of the bpftrace language."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bazaar.cli.output import output_option, print_json
from bazaar.errors import BazaarError, UsageError


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, metavar="[FILE] [PARAMETER]...")
@click.option("-e", "--execute", "text", metavar="PROGRAM", help="The program itself.")
@click.option(
    "-c",
    "--command",
    "command_line",
    metavar="CMD",
    help="Run a command and trace until it ends; cpid is its pid.",
)
@click.option(
    "-p", "--pid", type=click.IntRange(1), default=None, help="Only this process's events."
)
@click.option(
    "--container",
    "containers",
    multiple=True,
    metavar="NAME",
    help="Only this container's events, as the builtin `container` shows it; can be repeated.",
)
@click.option(
    "-d",
    "--duration",
    type=click.FloatRange(0, min_open=True),
    default=None,
    metavar="SECONDS",
    help="End after so long.",
)
@click.option(
    "-l",
    "--list",
    "search",
    metavar="PATTERN",
    help="List tracepoints, as in 'tracepoint:sched:*'.",
)
@click.option("--site", help="On a bazaar's site that is a cluster: on the machines of its pods.")
@click.option(
    "--pod",
    "pods",
    multiple=True,
    metavar="NAME",
    help="With --site, only this pod's events, or those of a service's; can be repeated.",
)
@click.option("--bazaar", help="Whose site, where several bazaars are up.")
@click.option("--wire", is_flag=True, hidden=True, help="For a Bazaar elsewhere.")
@output_option
def command(
    words: tuple[str, ...],
    text: str | None,
    command_line: str | None,
    pid: int | None,
    containers: tuple[str, ...],
    duration: float | None,
    search: str | None,
    site: str | None,
    pods: tuple[str, ...],
    bazaar: str | None,
    wire: bool,
    output: str,
) -> int:
    """Run a trace program of the bpftrace language.

    \b
    bazaar trace -e 'tracepoint:syscalls:sys_enter_write { @[comm] = hist(args.count); }'
    bazaar trace FILE.bt 100        # $1 is 100
    bazaar trace -e '…' -c 'dd if=/dev/zero of=/dev/null count=100'

    It ends with exit(), Ctrl-C, the command of -c, or --duration, and prints its maps.
    Results go to stdout, all else to stderr; `-o json` prints one object a line, with -l a list.
    """
    from bazaar.cli.tracing import Settings, run

    if search is not None:
        return _list(search, as_json=output == "json")
    file, parameters = "program", words
    if text is None:
        if not words:
            raise click.UsageError("a program is missing: a FILE, or -e 'PROGRAM'")
        file, parameters = words[0], words[1:]
        text = _read(file)
    settings = Settings(
        text,
        file,
        parameters,
        command_line,
        pid or 0,
        duration,
        output == "json",
        containers,
        wire,
    )
    if site is None:
        if pods or bazaar:
            raise click.UsageError("--pod and --bazaar go with --site")
        return run(settings)
    from bazaar.cli.cluster_tracing import run as run_there

    if command_line is not None or pid or containers:
        raise click.UsageError("--command, --pid and --container are of this machine alone")
    return run_there(settings, site, pods, bazaar)


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_bytes().decode()
    except OSError as error:
        raise UsageError(
            f"{name}: {error.strerror}", hint="a program's text comes with -e"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name}: this is no text: {error.reason} at byte {error.start}"
        ) from error


def _list(pattern: str, *, as_json: bool) -> int:
    from bazaar.trace import events

    parts = pattern.split(":")
    if parts[0] in ("tracepoint", "t", "*"):
        parts = parts[1:]
    category, name = [*parts, "*", "*"][:2] if parts else ("*", "*")
    found = events.names(category or "*", name or "*")
    if not found:
        raise BazaarError(
            f"no tracepoint of this kernel matches '{pattern}'",
            hint="as in 'tracepoint:sched:*'; '*' lists all of them",
        )
    if as_json:
        print_json(
            [
                {"probe": f"tracepoint:{group}:{one}", "category": group, "name": one}
                for group, one in found
            ]
        )
        return 0
    for group, one in found:
        print(f"tracepoint:{group}:{one}")
    return 0
