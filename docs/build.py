"""Builds the documentation's site and checks it: generated pages, links, anchors.

    .venv/bin/python docs/build.py [FOLDER]

Without FOLDER the site goes to a temporary folder and only the checks count. Needs no network.
Exit code 1 where a generated page is stale or a link leads nowhere.
"""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CHANGELOG.md")  # those beside docs/, whose links are checked too
SCHEMES = ("http", "https", "mailto")
_LINK = re.compile(r"(?<!\!)\[[^\]\n]*\]\(([^)\s]+)[^)]*\)")


class Page(html.parser.HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, and what it can be linked by."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def main(arguments: list[str]) -> int:
    """Build, check, say what is wrong; the exit code."""
    problems = stale()
    with tempfile.TemporaryDirectory(prefix="bazaar-docs-") as temporary:
        site = build(Path(temporary), problems)
        if site is not None:
            problems += broken(site)
            if arguments:
                shutil.copytree(site, arguments[0], dirs_exist_ok=True)
    problems += outside()
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def stale() -> list[str]:
    """The generated pages that are not as the code would write them."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return []
    return [line for line in done.stderr.splitlines() if line] or ["docs/generate --check failed"]


def build(folder: Path, problems: list[str]) -> Path | None:
    """The site below ``folder``; None where it could not be built."""
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(
        ROOT / "docs",
        folder / "docs",
        ignore=shutil.ignore_patterns("__pycache__", "*.py", "generate"),
    )
    done = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        problems.append(f"zensical: {_plain(done.stdout + done.stderr)}")
    site = folder / "site"
    return site if (site / "index.html").exists() else None


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def broken(site: Path) -> list[str]:
    """The links within a built site that lead nowhere."""
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html") if path.stem != "404"}
    found: list[str] = []
    for path, page in sorted(pages.items()):
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            name = path.relative_to(site)
            if not target.is_file():
                found.append(f"{name}: {link} leads to no page")
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in anchors and not _made_by_script(parts.fragment):
                    found.append(f"{name}: {link}: there is no such heading")
    return found


def _made_by_script(fragment: str) -> bool:
    return fragment.startswith("__")


def outside() -> list[str]:
    """The links of README and CHANGELOG to files that are not there."""
    found: list[str] = []
    for name in PAGES:
        for link in _LINK.findall((ROOT / name).read_text()):
            parts = urlsplit(link)
            if parts.scheme not in SCHEMES and not (ROOT / unquote(parts.path)).exists():
                found.append(f"{name}: {link} leads to no file")
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
