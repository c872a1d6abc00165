"""What `bazaar trace --site` does: the same program on a cluster's machines, one result."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bazaar.cli.tracing import Settings


def run(settings: Settings, site: str, pods: Sequence[str], bazaar: str | None) -> int:
    """Run it there, print what comes with its machine before it, and the maps of all as one."""
    from bazaar.trace import show
    from bazaar.up import cluster_trace
    from bazaar.up.cluster_trace import Said

    where = cluster_trace.place(site, pods, bazaar)
    width = max(len(node.name) for node in where.nodes)
    several = len(where.nodes) > 1

    def say(said: Said) -> None:
        what, label = said.what, f"{said.machine.ljust(width)}  " if several else ""
        if settings.json:
            sys.stdout.write(str(what.get("json", "")))
        else:
            lines = str(what.get("text", "")).splitlines(keepends=True)
            sys.stdout.write("".join(label + line for line in lines))
        sys.stdout.flush()
        if "attached" in what and not settings.json:
            count = what["attached"]
            plural = "s" if count != 1 else ""
            print(f"{label}Attaching {count} probe{plural}...", file=sys.stderr)
        if "lost" in what:
            print(f"{label}Lost {what['lost']} events", file=sys.stderr)
        for name, count in dict(what.get("full", {})).items():
            print(f"{label}{name} was full: {count} values were not kept", file=sys.stderr)

    words = ["--execute", settings.text, "--", *settings.parameters]
    maps = cluster_trace.run(where, words, settings.duration, say)
    sys.stdout.write(show.json(maps) if settings.json else f"\n\n{show.text(maps)}")
    return 0
