"""`bazaar run`: one container of an image, in the foreground or detached, as docker runs it."""

from __future__ import annotations

from typing import Any

import click

from bazaar.cli.run_options import OPTIONS, Option


def _options(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = click.option(*option.names, option.field, help=option.help, **_kind(option))(
            command
        )
    return command


def _kind(option: Option) -> dict[str, Any]:
    if option.kind == "flag":
        return {"is_flag": True}
    kinds: dict[str, Any] = {"cores": click.FloatRange(min=0.01), "count": click.IntRange(min=1)}
    if "|" in option.kind:
        kind: Any = click.Choice(option.kind.split("|"))
        return {"type": kind, "default": option.default, "show_default": True}
    words: dict[str, Any] = {"metavar": option.metavar, "type": kinds.get(option.kind, str)}
    if option.kind == "many":
        return {**words, "multiple": True}
    if option.default is not None:
        words |= {"default": option.default, "show_default": True}
    return words


@click.command(context_settings={"help_option_names": ["--help"], "allow_interspersed_args": False})
@_options
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
def command(**given: Any) -> int:
    """Run IMAGE as a container with a kernel of its own.

    IMAGE: deb://bookworm?packages=python3, a registry's (alpine, localhost:5000/x:tag),
    oci:DIR or dir:PATH. The exit code is the command's own; 2: wrong words here, 125: the engine's
    trouble, 126: the command is no program, 127: it is not there, 137: killed, or out of memory.
    """
    from bazaar.cli import run_request

    return run_request.execute(run_request.Request(**given))
