"""The pages of the reference that `docs/generate` writes from commands, schemas and docstrings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

HEAD = "<!-- Written by docs/generate from the code; change the code, not this page. -->\n"
REFERENCE = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """Each page's text by its name below docs/reference."""
    return {"cli.md": cli(), "status.md": status(), "bpf-python.md": bpf_python()}


def cli() -> str:
    """Every command with its help, as `--help` prints it."""
    from bazaar.cli import main

    lines = [
        HEAD,
        "# Commands",
        "",
        "Results go to stdout, all else to stderr. `-o json` prints one JSON document (`trace`:",
        "one object a line). `NO_COLOR` turns colour off. For exit codes see [errors](errors.md).",
        "",
        "| command | what it does |",
        "|---|---|",
        *(f"| [`{name}`](#bazaar-{name}) | {text} |" for name, (_, text) in main.COMMANDS.items()),
    ]
    root = click.Context(main.root, info_name="bazaar")
    for name in main.COMMANDS:
        command = main.root.get_command(root, name)
        assert command is not None
        lines += _command(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(lines) + "\n"


def _command(command: click.Command, context: click.Context, level: int = 2) -> list[str]:
    context.max_content_width = context.terminal_width = 92
    context.help_option_names = ["-h", "--help"]
    text = command.get_help(context).rstrip()
    lines = ["", f"{'#' * level} bazaar {_path(context)}", "", "```text", text, "```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            lines += _command(
                child, click.Context(child, info_name=name, parent=context), level + 1
            )
    return lines


def _path(context: click.Context) -> str:
    return context.command_path.removeprefix("bazaar ").strip()


def status() -> str:
    """The keys of `bazaar status -o json`, from its schema."""
    schema = json.loads((REFERENCE / "status.schema.json").read_text())
    lines = [
        HEAD,
        "# Status as JSON",
        "",
        "What `bazaar status -o json` prints; [status.schema.json](status.schema.json) is the JSON",
        "Schema, which tests hold the command to. New keys may come; those here stay.",
    ]
    _object(lines, "The whole", schema)
    return "\n".join(lines) + "\n"


def _object(lines: list[str], title: str, schema: dict[str, Any]) -> None:
    inner: list[tuple[str, dict[str, Any]]] = []
    lines += ["", f"## {title}", "", "| key | value | meaning |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        nested = field.get("items", field)
        if "properties" in nested:
            inner.append((name, nested))
        about = field.get("description", "")
        always = "" if name in schema.get("required", []) else " (may be missing)"
        lines.append(f"| `{name}` | {_kind(field)}{always} | {about} |")
    for name, nested in inner:
        _object(lines, f"`{name}`", nested)


def _kind(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kinds = field.get("type", "anything")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    words = {"array": "list", "object": "object", "integer": "whole number"}
    named = [words.get(kind, kind) for kind in kinds]
    if "items" in field and field["items"].get("type"):
        named[0] = f"list of {field['items']['type']}s"
    return " or ".join(named)


def bpf_python() -> str:
    """The language of `bazaar.bpf.python`, and the names it knows."""
    import bazaar.bpf.python as language
    from bazaar.bpf.python import contexts, headers, kernel, maps, programs

    lines = [HEAD, "# BPF programs in Python", "", _markdown(language.__doc__ or "")]
    lines += ["", "## Programs and attaching", "", "| decorator | what for |", "|---|---|"]
    for name in (
        "xdp",
        "tcx",
        "tracepoint",
        "raw_tracepoint",
        "cgroup_ingress",
        "cgroup_egress",
        "function",
    ):
        lines.append(_row(name, getattr(programs, name)))
    lines += ["", "## Contexts", "", "| class | fields | |", "|---|---|---|"]
    for one in (
        contexts.XdpContext,
        contexts.SkBuff,
        contexts.TracepointContext,
        contexts.RawTracepointContext,
    ):
        fields = ", ".join(f"`{field}`" for field in one.__annotations__ if field != "packet")
        lines.append(f"| `{one.__name__}` | {fields} | {_first(one)} |")
    lines += ["", "## Headers", "", "| struct | fields | |", "|---|---|---|"]
    for name in ("Ethernet", "Vlan", "IPv4", "IPv6", "Tcp", "Udp", "Icmp"):
        one = getattr(headers, name)
        fields = ", ".join(f"`{field}`" for field in one.__annotations__)
        lines.append(f"| `{name}` | {fields} | {_first(one)} |")
    lines += ["", "## Maps", "", "| class | what for |", "|---|---|"]
    for name in (
        "Array", "HashMap", "LruHashMap", "LpmTrie", "PerCpuArray", "PerCpuHashMap",
        "LruPerCpuHashMap", "RingBuffer", "Variable",
    ):  # fmt: skip
        lines.append(_row(name, getattr(maps, name)))
    lines += ["", "## Functions", "", "| function | what for |", "|---|---|"]
    special = (kernel.packet, kernel.packet_length, kernel.atomic_add, kernel.fill, kernel.truncate)
    for one in (*special, kernel.helper, kernel.kernel_function, *kernel.HELPERS):
        lines.append(_row(one.__name__, one))
    return "\n".join(lines) + "\n"


def _row(name: str, thing: Any) -> str:
    return f"| `{name}` | {_first(thing)} |"


def _first(thing: Any) -> str:
    """A docstring on one line; empty where a class only inherits one."""
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    return " ".join((text or "").split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")


def _markdown(text: str) -> str:
    """reStructuredText as our docstrings use it: double backticks, and indented code."""
    found: list[str] = []
    code = False
    lines = text.strip().splitlines()
    for number, line in enumerate(lines):
        begins = line.startswith("    ") and (number == 0 or not lines[number - 1].strip())
        if begins and not code:
            found.append("```python")
            code = True
        if code and line.strip() and not line.startswith("    "):
            while not found[-1].strip():
                found.pop()
            found += ["```", ""]
            code = False
        found.append(line[4:] if code else re.sub(r"``([^`]+)``", r"`\1`", line))
    return "\n".join([*found, "```"] if code else found)
