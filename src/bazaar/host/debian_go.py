"""A Go toolchain of the right age from Debian, unpacked into the cache; nothing is installed."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.host import locks, paths

VERSION = "1.23"
PACKAGES = (f"golang-{VERSION}-go", f"golang-{VERSION}-src")


def get(progress: Callable[[str], None]) -> Path:
    """The `go` program of Debian's golang-1.23-go. Raises MissingError."""
    target = paths.cache() / f"go-{VERSION}"
    program = target / "usr" / "lib" / f"go-{VERSION}" / "bin" / "go"
    with locks.waiting(paths.cache() / "go.lock"):
        if program.exists():
            return program
        progress(f"getting Go {VERSION} from Debian to build with")
        with tempfile.TemporaryDirectory(dir=paths.cache(), prefix=".go-") as temporary:
            folder = Path(temporary)
            options = _private_apt(folder)
            _run(["apt-get", *options, "-q", "update"], folder)
            _run(["apt-get", *options, "-q", "download", *PACKAGES], folder)
            root = folder / "root"
            root.mkdir()
            for archive in sorted(folder.glob("*.deb")):
                _run(["dpkg-deb", "-x", str(archive), str(root)], folder)
            root.chmod(0o755)
            root.rename(target)
    return program


def _private_apt(folder: Path) -> list[str]:
    """Options for an apt that keeps lists and archives in ``folder``, with backports added."""
    lines: list[str] = []
    from bazaar.host import apt_sources

    release = _codename()
    for source in apt_sources.read():
        if source.distribution and source.suite == release:
            lines.append(source.line(release))
            lines.append(source.line(f"{release}-backports"))
    if not lines:
        raise MissingError("there is no Go client, and no Debian source to get one from")
    (folder / "sources.list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    # apt downloads as the user _apt, who must be able to walk there.
    folder.chmod(0o755)
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _codename() -> str:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        text = ""
    match = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.MULTILINE)
    return match[1] if match else "stable"


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise MissingError(f"there is no Go client, and no {command[0]} to get one with") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or ["no word"]
        raise MissingError(
            f"there is no Go client, and Debian's cannot be had: {command[0]}: {said[0]}"
        ) from error
