"""`bazaar schema`: the JSON Schema of a bazaar, for editors."""

from __future__ import annotations

import click

from bazaar.cli.output import print_json


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of a bazaar's YAML, for editors.

    Save it and name it in a comment on top of a file:
    "# yaml-language-server: $schema=bazaar.schema.json"
    """
    from bazaar.spec import schema

    print_json(schema())
