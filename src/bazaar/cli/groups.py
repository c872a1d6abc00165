"""Groups of commands whose help says each command's whole first sentence."""

from __future__ import annotations

import click


class Group(click.Group):
    """As click's own, whose help ends sentences after 45 letters."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _sentence(one.help or "")) for name, one in found if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _sentence(text: str) -> str:
    return " ".join(text.strip().split("\n\n", 1)[0].split())
