"""The options of `bazaar run`: one table, read by click for help and errors, and by hand for speed.

click costs 20 ms before a container can be started. `quick` reads every well-formed command
line from the same table; what it does not understand at once it leaves to click, which then
says what is wrong.
"""

from __future__ import annotations

import re

from bazaar.model.record import record
from bazaar.typed import Any


@record
class Option:
    """One option as docker names it."""

    names: tuple[str, ...]
    field: str  # of run_request.Request
    kind: str  # flag | text | many | cores | count, or choices joined by '|'
    metavar: str
    help: str
    default: Any = None


OPTIONS = (
    Option(("-i", "--interactive"), "interactive", "flag", "", "Pass stdin on, to its end."),
    Option(("-t", "--tty"), "tty", "flag", "", "Give it a terminal."),
    Option(("-d", "--detach"), "detach", "flag", "", "Leave it running and print its name."),
    Option(("--rm",), "remove", "flag", "", "Remove it when it ends: without -d so it is anyway."),
    Option(("--keep",), "keep", "flag", "", "Do not remove it when it ends."),
    Option(("--name",), "name", "text", "NAME", "Its name; made up when left out."),
    Option(
        ("-p", "--publish"),
        "publish",
        "many",
        "[ADDRESS:]PORT:PORT",
        "A TCP port of the host, then the one inside; loopback without ADDRESS.",
    ),
    Option(("-v", "--volume"), "volumes", "many", "SOURCE:TARGET[:ro]", "A path or named volume."),
    Option(("--mount",), "mounts", "many", "KEY=VALUE,…", "type=, source=, target=, readonly."),
    Option(("--tmpfs",), "tmpfs", "many", "TARGET", "An empty directory in memory."),
    Option(("-e", "--env"), "variables", "many", "NAME[=VALUE]", "A variable; no value: ours."),
    Option(("--env-file",), "env_files", "many", "FILE", "Variables, one NAME=VALUE a line."),
    Option(("-w", "--workdir"), "workdir", "text", "PATH", "The working directory inside."),
    Option(("-u", "--user"), "user", "text", "USER[:GROUP]", "By name or number."),
    Option(("-h", "--hostname"), "hostname", "text", "NAME", "Its host name."),
    Option(
        ("--entrypoint",), "entrypoint", "text", "PROGRAM", "Instead of the image's entrypoint."
    ),
    Option(
        ("--engine",),
        "engine",
        "gvisor|shared",
        "",
        "A kernel of its own, or the host's.",
        "gvisor",
    ),
    Option(("-m", "--memory"), "memory", "text", "BYTES", "At most so much memory: 512m, 2g."),
    Option(("--cpus",), "cpus", "cores", "CORES", "At most so many cores: 0.5."),
    Option(("--pids-limit",), "pids_limit", "count", "COUNT", "At most so many processes."),
    Option(
        ("--network",),
        "network",
        "text",
        "none|bridge|NAMESPACE",
        "bridge has a way out.",
        "bridge",
    ),
    Option(("--read-only",), "read_only", "flag", "", "The root cannot be written to."),
    Option(("--pull",), "pull", "missing|always|never", "", "When to get the image.", "missing"),
)


def quick(words: list[str]) -> dict[str, Any] | None:  # noqa: PLR0911, PLR0912 - one loop over one grammar
    """The fields of a Request for well-formed ``words``; None for what click should judge."""
    by_name = {name: option for option in OPTIONS for name in option.names}
    given: dict[str, Any] = {}
    rest = list(reversed(words))
    while rest and rest[-1].startswith("-"):
        word = rest.pop()
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = by_name.get(name)
            if option is None or (option.kind == "flag" and equals):
                return None
            if option.kind == "flag":
                given[option.field] = True
                continue
            if not equals:
                if not rest:
                    return None
                value = rest.pop()
        else:
            # Short flags may be joined: -it; the last may have its value joined: -eA=1.
            letters = word[1:]
            option = None
            while letters:
                option = by_name.get(f"-{letters[0]}")
                letters = letters[1:]
                if option is None:
                    return None
                if option.kind != "flag":
                    break
                given[option.field] = True
            if option is None or option.kind == "flag":
                if option is None:
                    return None
                continue
            if not letters and not rest:
                return None
            value = letters or rest.pop()
        if not _take(given, option, value):
            return None
    if not rest:
        return None
    given["image"] = rest.pop()
    given["words"] = tuple(reversed(rest))
    return given


def _take(given: dict[str, Any], option: Option, value: str) -> bool:
    if option.kind == "many":
        given[option.field] = (*given.get(option.field, ()), value)
    elif option.kind == "text" or ("|" in option.kind and value in option.kind.split("|")):
        given[option.field] = value
    elif option.kind == "cores":
        try:
            given[option.field] = float(value)
        except ValueError:
            return False
        return given[option.field] >= 0.01
    elif option.kind == "count" and re.fullmatch("[1-9][0-9]{0,8}", value):
        given[option.field] = int(value)
    else:
        return False
    return True
