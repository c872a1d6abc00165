"""How commands print: results to stdout, all else to stderr, colour as a second signal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import threading

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(command: Command) -> Command:
    """``-o table|json``, as every command that prints data takes it; parameter ``output``."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Format."
    )(command)


def print_json(value: Any) -> None:
    """Print ``value`` as the one JSON document of this command."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns aligned by two spaces, the header in capitals; no line ends in spaces."""
    lines = [[str(cell) for cell in header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def colour(text: str, name: str, stream: Any = None) -> str:
    """``text`` in a colour where the stream is a terminal and NO_COLOR is not set."""
    codes = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    return f"\033[{codes[name]}m{text}\033[0m"


class Progress:
    """What goes on, on stderr: one line that changes on a terminal, plain lines elsewhere.

    Elsewhere (a log, a pipe) a step becomes a line only when nothing was printed for ``pause``
    seconds, and is told again, with the time it has taken, every ``patience`` seconds.
    """

    def __init__(self, pause: float = 2.0, patience: float = 15.0) -> None:
        self.terminal = sys.stderr.isatty()
        self.open = False
        self._pause, self._patience = pause, patience
        self._under_way = ""
        self._told = ""
        self._since = self._printed = time.monotonic()
        self._teller: threading.Thread | None = None

    def step(self, text: str) -> None:
        """Something is under way, until the next line replaces it."""
        if self.terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # 0: unknown
            sys.stderr.write(f"\r\033[K{text[: width - 1]}")
            sys.stderr.flush()
            self.open = True
            return
        if text != self._under_way:
            self._under_way, self._since = text, time.monotonic()
        if self._teller is None:
            import threading

            self._teller = threading.Thread(target=self._tell, daemon=True)
            self._teller.start()

    def _tell(self) -> None:
        """Print the step that is under way when it is due, for as long as the program runs."""
        while True:
            time.sleep(min(self._pause, self._patience) / 4)
            text, now = self._under_way, time.monotonic()
            again = text == self._told
            if not text or now - self._printed < (self._patience if again else self._pause):
                continue
            self._told, self._printed = text, now
            took = f" ({now - self._since:.0f} s)" if again else ""
            print(f"{text}{took}", file=sys.stderr, flush=True)

    def done(self, text: str) -> None:
        """Something has a result; the line stays."""
        self.clear()
        self._printed = time.monotonic()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the changing line away."""
        self._under_way = ""
        if self.open:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self.open = False


def size(count: int) -> str:
    """Bytes as people say them: 34 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
