"""The command line's root: finds the one file a command needs, and loads no other."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from typing import Any, TextIO

import click

from bazaar import __version__
from bazaar.errors import BazaarError

# name → (module below bazaar.cli, one line of help). The help stands here so that
# `bazaar --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Make a bazaar real: plan, apply, wait until it is healthy."),
    "plan": ("plan", "Show what `up` would change, and change nothing."),
    "list": ("list", "List the bazaars of this machine."),
    "status": ("status", "Show sites, services, replicas, probes and the shield."),
    "logs": ("logs", "Print what a service's replicas wrote."),
    "exec": ("exec", "Run a command inside a replica."),
    "drill": ("drill", "Measure the running bazaar: boot, trace, flood, site, crash."),
    "down": ("down", "Take a bazaar away; named volumes stay unless --volumes is said."),
    "run": ("run", "Run an image as a container with a kernel of its own."),
    "ps": ("ps", "List containers."),
    "stop": ("stop", "Stop containers."),
    "rm": ("rm", "Remove containers."),
    "images": ("images", "List the images on this machine."),
    "trace": ("trace", "Run a trace program of the bpftrace language."),
    "shield": ("shield", "Guard an interface against floods."),
    "stands": ("stands", "List the ready-made services of the catalogue."),
    "take": ("take", "Run one stand of the catalogue at once."),
    "schema": ("schema", "Print the JSON Schema of a bazaar, for editors."),
    "cluster": ("cluster", "Make Kubernetes clusters of machines, and look after them."),
    "machines": ("machines", "Make local machines with SSH, list them, take them away."),
    "doctor": ("doctor", "List what this machine needs, and install what it can."),
    "supervise": ("supervise", "Run a bazaar's supervisor in the foreground (systemd calls this)."),
}
HIDDEN = frozenset({"supervise"})
ALIASES = {"ls": "list"}


class Commands(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bazaar.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in {**COMMANDS, **ALIASES} and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"there is no command '{args[0]}'.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="bazaar %(version)s")
def root() -> None:
    """Order machines, make clusters, run containers, trace them, shield them.

    One description, one command: `bazaar up examples/fosdem.yaml`.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors become a message and an exit code, never a traceback."""
    streams = sys.stdout, sys.stderr
    try:
        code = _answer(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # what is still held meets a full disk or a reader that left here
    except OSError as error:
        return failed(error)
    except SystemExit:
        # click ends so where it met the same, and has wrapped the streams then.
        if (sys.stdout, sys.stderr) == streams:
            raise
        sys.stdout, sys.stderr = streams
        return reader_left()
    return code


def failed(error: BazaarError | OSError) -> int:
    """Say why a command failed; its exit code."""
    if isinstance(error, BrokenPipeError):
        return reader_left()
    if isinstance(error, BazaarError):
        print_error(error)
        return error.exit_code
    # What no layer foresaw: a file that may not be read, a full disk.
    what, hint = f"{error.filename}: " if error.filename else "", None
    if not what and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        # The kernel does not say of which file: stdout may have lost what it held by now.
        what = "the output or a file cannot be written: "
        hint = "free space where stdout goes, and in the state and cache folders"
    try:
        sys.stdout.flush()
    except OSError:
        _forget_output()
    _complain(f"{what}{error.strerror or error}", hint)
    return 1


def reader_left() -> int:
    """The reader went away (`| head`): end as the signal would have ended us."""
    _forget_output()
    try:
        sys.stderr.flush()
    except OSError:  # it read that, too
        _forget_output(sys.stderr)
    return 128 + signal.SIGPIPE


def _forget_output(stream: TextIO | None = None) -> None:
    """What is held goes nowhere, without a complaint."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, (stream or sys.stdout).fileno())
    os.close(null)


def _answer(arguments: list[str]) -> int:
    try:
        result: Any = root.main(arguments, prog_name="bazaar", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        _complain(error.format_message(), _usage_hint(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BazaarError as error:
        return failed(error)
    return result if isinstance(result, int) else 0


def print_error(error: BazaarError) -> None:
    """Show an error the way every command does."""
    from bazaar.errors import SpecError, TraceError

    if isinstance(error, SpecError | TraceError):
        print(error, file=sys.stderr)
        return
    _complain(error.message, error.hint)


def _complain(message: str, hint: str | None) -> None:
    print(f"bazaar: {message}", file=sys.stderr)
    for line in (hint or "").splitlines():
        print(f"        {line}", file=sys.stderr)


def _usage_hint(error: click.ClickException) -> str | None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"`{context.command_path} --help` lists what it takes" if context else None
