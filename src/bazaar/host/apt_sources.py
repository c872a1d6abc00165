"""This machine's own apt sources and settings, for roots that are made of its packages.

One-line (sources.list(5)) and deb822 files. Sources of third parties are passed over: an image
is made of the distribution alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from bazaar.model.record import record

APT = Path("/etc/apt")
COMPONENTS = frozenset(
    {"main", "contrib", "non-free", "non-free-firmware", "universe", "restricted", "multiverse"}
)
KEYRINGS = ("debian-archive", "ubuntu-archive", "ubuntu-master")
_POCKETS = ("", "-updates", "-security")
# What images may know of this machine's apt: how to reach the archive, not what to keep.
_SETTINGS = re.compile(
    r'^Acquire::(?!Languages|Gzip|CompressionTypes|PDiffs)[A-Za-z0-9:._/+-]+ "[^"\n]*";$'
)


@record
class Source:
    """One suite of one archive."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""  # a keyring's path; "" uses apt's own trust
    trusted: bool = False

    @property
    def distribution(self) -> bool:
        """Whether it is the distribution's own archive."""
        ours = not self.signed_by or Path(self.signed_by).name.startswith(KEYRINGS)
        return ours and "main" in self.components and set(self.components) <= COMPONENTS

    def line(self, suite: str = "") -> str:
        """It as a one-line source, for another suite if one is given."""
        options = f"signed-by={self.signed_by}" if self.signed_by else ""
        options += " trusted=yes" if self.trusted else ""
        middle = f" [{options.strip()}]" if options else ""
        return f"deb{middle} {self.uri} {suite or self.suite} {' '.join(self.components)}"


def read(folder: Path = APT) -> list[Source]:
    """Every binary source in ``folder``, in apt's order."""
    found: list[Source] = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            found += parse_deb822(text)
        elif path.suffix == ".list":
            found += parse_lines(text)
    return found


def parse_lines(text: str) -> Iterator[Source]:
    """Sources in the one-line format; lines that are none are passed over."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if not match:
            continue
        words = str(match[1] or "").split()
        options = {key: value for key, _, value in (word.partition("=") for word in words)}
        signed = options.get("signed-by", "")
        yield Source(
            match[2],
            match[3],
            tuple(match[4].split()),
            signed if signed.startswith("/") else "",
            options.get("trusted") == "yes",
        )


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources in the deb822 format."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if (
            "deb" not in fields.get("types", "").split()
            or fields.get("enabled", "yes").lower() == "no"
        ):
            continue
        signed = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(
                    uri,
                    suite,
                    tuple(fields.get("components", "").split()),
                    signed if signed.startswith("/") else "",
                    fields.get("trusted", "").lower() == "yes",
                )


def for_suite(suite: str, sources: Iterable[Source] | None = None) -> list[str]:
    """One-line sources of ``suite``, its updates and its security fixes.

    Where this machine's own are of another suite, they are asked for this one. Empty when the
    machine has no archive of its distribution.
    """
    own = [source for source in (read() if sources is None else sources) if source.distribution]
    wanted = {suite + pocket: pocket for pocket in _POCKETS}
    exact = [source.line() for source in own if source.suite in wanted]
    if exact:
        return list(dict.fromkeys(exact))
    lines: list[str] = []
    for source in own:
        pocket = next(
            (p for p in ("-updates", "-security", "-backports") if source.suite.endswith(p)), ""
        )
        if pocket in _POCKETS and not (pocket and suite in ("sid", "unstable")):
            lines.append(source.line(suite + pocket))
    return list(dict.fromkeys(lines))


def settings() -> list[str]:
    """How this machine's apt reaches archives: proxies, certificates, time-outs."""
    try:
        dump = subprocess.run(
            ["apt-config", "dump"], capture_output=True, text=True, check=False
        ).stdout
    except FileNotFoundError:
        return []
    return [line for line in dump.splitlines() if _SETTINGS.match(line)]
