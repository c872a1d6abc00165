"""Debian's and Ubuntu's packages: which are there, and installing what is missing.

On another system nothing is installed: the caller says what is missing and how to get it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bazaar.errors import CommandError, MissingError
from bazaar.host import commands

Progress = Callable[[str], None]

OS_RELEASE = Path("/etc/os-release")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")  # Debian Policy 5.6.7
_LOCK_SECONDS = 300  # how long another apt may hold the lock


@dataclass(frozen=True, slots=True)
class System:
    """A Linux distribution by its os-release(5)."""

    id: str  # debian, ubuntu, fedora
    like: tuple[str, ...]
    name: str  # as people read it

    @property
    def debian(self) -> bool:
        """Whether it installs Debian packages by apt."""
        return bool({"debian", "ubuntu"} & {self.id, *self.like})


def system(release: Path = OS_RELEASE) -> System:
    """What this machine runs; unknown where it does not say."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in release.read_text(errors="replace")[:65536].splitlines():
            key, equals, value = line.partition("=")
            if equals and not key.startswith("#"):
                fields[key] = " ".join(shlex.split(value))
    identity = fields.get("ID", "linux")
    return System(
        identity, tuple(fields.get("ID_LIKE", "").split()), fields.get("PRETTY_NAME", identity)
    )


def installable() -> bool:
    """Whether `install` can work here: apt is there, and we may use it."""
    return system().debian and commands.which("apt-get") is not None and os.geteuid() == 0


def missing(names: Iterable[str]) -> list[str]:
    """Those of the packages that are not installed, in the given order, each once."""
    wanted = list(dict.fromkeys(names))
    _check(wanted)
    if not wanted:
        return []
    # It fails where it knows one of the names not at all, and prints the others all the same.
    found = commands.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *wanted], check=False
    )
    pairs = (line.split() for line in found.output.splitlines())
    installed = {pair[0] for pair in pairs if pair[1:] == ["installed"]}
    return [name for name in wanted if name not in installed]


def install(names: Iterable[str], progress: Progress) -> list[str]:
    """Install what is missing of the packages by one call of apt; what was installed.

    Recommended packages are left out, configuration files are kept, nothing is asked.
    Raises MissingError where packages cannot be installed here, CommandError with apt's
    own words where apt fails.
    """
    wanted = missing(names) if commands.which("dpkg-query") else list(names)
    if not wanted:
        return []
    line = f"apt-get install --no-install-recommends {' '.join(wanted)}"
    if not system().debian or commands.which("apt-get") is None:
        raise MissingError(
            f"{system().name} has no apt to install {', '.join(wanted)} by",
            hint="install the programs by your system's own means; Debian's names are given",
        )
    if os.geteuid() != 0:
        raise MissingError("installing packages takes root", hint=f"sudo {line}")
    progress("apt: reading the lists of packages")
    with contextlib.suppress(CommandError):
        # Without a network what apt knows already may do; if not, the next call says so.
        _apt(["update"], progress)
    _apt(["install", "--no-install-recommends", *wanted], progress)
    _quiet(wanted)
    return wanted


def _check(names: Iterable[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise MissingError(f"{name!r} is no package's name")


def _apt(arguments: list[str], progress: Progress) -> None:
    """Run apt-get; each line it prints is progress. Raises CommandError."""
    _check(argument for argument in arguments[1:] if not argument.startswith("--"))
    words = [
        commands.find("apt-get"),
        "--yes",
        "--quiet",
        "-o",
        f"DPkg::Lock::Timeout={_LOCK_SECONDS}",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        *arguments,
    ]
    environment = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive",
        "NEEDRESTART_MODE": "l",  # Ubuntu's needrestart only lists
        "LC_ALL": "C.UTF-8",
    }

    def heard(line: str) -> None:
        if said := _telling(line.strip()):
            progress(f"apt: {said}")

    code, last = commands.follow(words, heard, environment)
    if code != 0:
        # Of its errors the first is the cause, the last its advice.
        errors = [line for line in last if line.startswith("E: ")][:1]
        reason = (errors or [line for line in last if line] or ["it said nothing"])[-1]
        raise CommandError(
            f"apt-get {arguments[0]}: {reason.removeprefix('E: ')}",
            code=code,
            output="\n".join(last),
            hint=f"see what `apt-get {arguments[0]} {' '.join(arguments[1:])}` says".rstrip(),
        )


def _telling(line: str) -> str:
    """What a line of apt tells about where it is, or nothing."""
    match = re.match(r"(Get:\d+|Unpacking|Setting up|Need to get) ?(.*)", line)
    if match is None:
        return ""
    if match[1].startswith("Get:"):
        # address suite architecture package architecture version, or what an update fetches
        words = match[2].split(" [")[0].split()
        if words[-1:] in (["InRelease"], ["Release"], ["Packages"]):
            return "reading the lists of packages"
        return f"downloading {words[3]}" if len(words) > 3 else ""
    rest = match[2].split(" (")[0].removesuffix(" ...")
    return f"{match[1].lower()} {rest}"


def _quiet(installed: Iterable[str]) -> None:
    """Stop and disable services that packages start by themselves and nobody asked for.

    Ours run apart from them: HAProxy in a namespace, with a configuration of its own.
    """
    if not Path("/run/systemd/system").is_dir():
        return
    for name in set(installed) & {"haproxy"}:
        commands.run(["systemctl", "disable", "--now", f"{name}.service"], check=False)
