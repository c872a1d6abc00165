"""The documentation says what the code does: commands, links, examples."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bazaar import spec
from bazaar.cli import main
from bazaar.errors import BazaarError, TraceError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
GENERATED = ("cli.md", "spec.md", "stands.md", "status.md", "bpf-python.md")


def commands() -> dict[str, click.Command]:
    """Every command by its path, subcommands too."""
    root = click.Context(main.root, info_name="bazaar")
    found: dict[str, click.Command] = {}
    waiting = [(name, main.root.get_command(root, name)) for name in main.COMMANDS]
    while waiting:
        path, command = waiting.pop()
        assert command is not None, path
        found[path] = command
        if isinstance(command, click.Group):
            waiting += [(f"{path} {name}", one) for name, one in command.commands.items()]
    return found


def blocks(language: str, *, without: str = "\0") -> list[tuple[str, str]]:
    """The fenced blocks of one language, but those that hold ``without``: page and text."""
    fence = re.compile(rf"^```{language}\b[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        (str(page.relative_to(ROOT)), text)
        for page in PAGES
        if page.name not in GENERATED
        for text in fence.findall(page.read_text())
        if without not in text
    ]


@pytest.mark.parametrize(("path", "command"), commands().items())
def test_every_command_has_help_and_is_in_the_reference(path: str, command: click.Command):
    assert command.help, f"bazaar {path} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"bazaar {path} {parameter.opts[0]} has no help"
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert re.search(rf"^#+ bazaar {path}$", page, re.MULTILINE), f"bazaar {path} is not in cli.md"


def test_the_site_builds_and_all_links_lead_somewhere():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_broken_links_are_found(tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import build
    finally:
        sys.path.pop(0)
    (tmp_path / "index.html").write_text('<h1 id="a"></h1><a href="there/#b">x</a><a href="#a">')
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<a href="../#c">x</a><a href="../nowhere/">')
    found = build.broken(tmp_path)
    assert len(found) == 3, found
    assert {line.split(": ")[0] for line in found} == {"index.html", "there/index.html"}


def test_commands_in_the_pages_exist():
    known = set(commands())
    for page in PAGES:
        for words in re.findall(r"(?:^|[`$ ])\./bazaar ([a-z]+(?: [a-z]+)?)", page.read_text()):
            first, _, second = words.partition(" ")
            assert first in known, f"{page.name}: bazaar {first}"
            if first == "shield" and second:
                assert words in known, f"{page.name}: bazaar {words}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml", without="scrape_configs"))
def test_yaml_in_the_pages_is_a_description(page: str, text: str, tmp_path):
    if not re.search(r"^bazaar:", text, re.MULTILINE):
        text = f"bazaar: shown\n{text}"
    if "sites: [north]" in text and not re.search(r"^sites:", text, re.MULTILINE):
        text = f"{text}sites:\n  north: {{}}\n"
    if not re.search(r"^services:", text, re.MULTILINE):
        text = f"{text}services:\n  web: {{stand: apache}}\n"
    for name in ("site.pem", "db.password", "local.conf"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "sends.bt").write_text("BEGIN { exit(); }\n")
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    loaded = spec.load(str(path))
    if not any(site.cluster for site in loaded.sites):  # those are `bazaar cluster apply`'s
        spec.resolve(loaded)


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_in_the_pages_is_a_description(page: str, text: str, tmp_path):
    path = tmp_path / "shown.py"
    path.write_text(text)
    assert spec.resolve(spec.load(str(path))).name == "shop"


def programs() -> list[tuple[str, str]]:
    """The programs of `trace -e '…'` in the pages."""
    return [
        (page.name, text)
        for page in PAGES
        if page.name not in GENERATED
        for text in re.findall(r"trace [^\n]*?-e '([^'…]+)'", page.read_text())
    ]


@pytest.mark.parametrize(("page", "text"), programs())
def test_trace_programs_in_the_pages_compile(page: str, text: str):
    from bazaar import trace

    if text.startswith("kprobe"):
        with pytest.raises(TraceError):
            trace.compile(text)
        return
    try:
        assert trace.compile(text).probes
    except BazaarError as error:
        if "needs to be root" in str(error):
            pytest.skip("tracefs can only be read by root")
        raise


def test_nothing_is_said_of_where_it_was_written():
    private = re.compile(
        r"/work/|/root/|/home/[a-z]|registry-1|pypi\.|proxy\.golang", re.IGNORECASE
    )
    for page in PAGES:
        found = private.search(page.read_text())
        assert found is None, f"{page.name}: {found.group() if found else ''}"


def test_no_tracked_file_holds_a_merge_conflict():
    marker = r"^(<{7}|>{7}|[|]{7})( |$)|^={7}$"
    # Git itself knows which files are tracked, and -I which are text.
    asked = ["git", "-C", ROOT, "-c", f"safe.directory={ROOT}", "grep", "-InE", marker]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode > 1:
        pytest.skip(f"this tree is no clone: {found.stderr.strip()}")
    assert found.stdout == ""
