"""``deb://SUITE?packages=a,b``: a root made of the distribution's packages.

Two layers: a base of the suite that all such images share, made by mmdebstrap, and the
packages on top, installed by the base's own apt in an overlay whose difference is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bazaar.errors import ImageError
from bazaar.host import apt_sources, files, locks, paths
from bazaar.model.container import Image, ImageConfig
from bazaar.model.record import record
from bazaar.run.images import store

Progress = Callable[[str], None]
FORMAT = "1"  # raised when roots are made differently, so that old ones are not taken for new
FRESH = 3600.0  # seconds the archive's lists are good for
CONFIG = ImageConfig(command=("/bin/bash",), working_directory="/")
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "force-unsafe-io",
)
_CHROOT = (
    "import sys; sys.path.insert(0, sys.argv[2]); "
    "from bazaar.run.images.chroot import main; main(sys.argv[1])"
)


@record
class Reference:
    """What a deb:// reference asks for."""

    suite: str
    packages: tuple[str, ...]


def parse(reference: str) -> Reference:
    """Read a deb:// reference. Raises ImageError that says what is wrong with it."""
    try:
        parts = urlsplit(reference)
        fields = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError as error:
        raise ImageError(f"{reference}: {error}", hint="deb://bookworm?packages=apache2") from error
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", parts.netloc) or parts.path not in ("", "/"):
        raise ImageError(
            f"{reference}: '{parts.netloc}{parts.path}' is no suite",
            hint="deb://bookworm?packages=apache2",
        )
    if unknown := [name for name, _ in fields if name != "packages"]:
        raise ImageError(
            f"{reference}: unknown setting '{unknown[0]}'", hint="it takes packages=a,b"
        )
    # A '+' in a query means a space; in a package's name it is a plus.
    names = ",".join(value for _, value in fields).replace(" ", "+").split(",")
    packages = tuple(sorted({name for name in names if name}))
    for name in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise ImageError(f"{reference}: '{name}' is no package's name")
    return Reference(parts.netloc, packages)


def make(reference: str, progress: Progress, *, fresh: bool = False) -> Image:
    """Make the image; its layers are kept and shared. Raises ImageError."""
    wanted = parse(reference)
    for program in ("mmdebstrap", "apt-get", "unshare"):
        if shutil.which(program) is None:
            raise ImageError(f"{reference}: {program} is not installed", hint="bazaar doctor --fix")
    if os.geteuid() != 0:
        raise ImageError(f"{reference}: making a root takes root", hint="run it with sudo")
    lines = apt_sources.for_suite(wanted.suite)
    if not lines:
        raise ImageError(
            f"{reference}: this machine has no apt source of its distribution",
            hint="name one in /etc/apt/sources.list.d",
        )
    archive = _Archive(wanted.suite, lines)
    archive.update(progress, reference, fresh=fresh)
    base = _base(archive, progress, reference)
    layers = (
        (base, _packages(archive, base, wanted.packages, progress, reference))
        if wanted.packages
        else (base,)
    )
    digest = hashlib.sha256("\n".join(layer.name for layer in layers).encode()).hexdigest()
    return Image(reference, f"sha256:{digest}", layers, CONFIG, sum(map(_size, layers)))


def _size(layer: Path) -> int:
    manifest = files.read_json(layer.with_name(layer.name + ".json"))
    return int(manifest["size"]) if manifest else store.size(layer)


class _Archive:
    """The suite's sources, with lists of our own that all builds share."""

    def __init__(self, suite: str, lines: list[str]) -> None:
        self.suite = suite
        self.lines = lines
        key = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
        self.folder = paths.cache() / "apt" / f"{suite}-{key}"
        self.releases: list[str] = []

    def update(self, progress: Progress, reference: str, *, fresh: bool) -> None:
        """Fetch the lists unless they are fresh, and note the digests of the Release files."""
        lists = self.folder / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        stamp = self.folder / "updated"
        with locks.waiting(self.folder / "lock"):
            old = not stamp.exists() or time.time() - stamp.stat().st_mtime > FRESH
            if old or fresh:
                progress(f"{reference}: reading the archive's lists")
                (self.folder / "sources.list").write_text("\n".join(self.lines) + "\n")
                (self.folder / "apt.conf").write_text("\n".join(apt_sources.settings()) + "\n")
                for name in ("cache/archives/partial", "state"):
                    (self.folder / name).mkdir(parents=True, exist_ok=True)
                (self.folder / "state" / "status").touch()
                _run(["apt-get", *self._options(), "update"], reference, progress, quiet=True)
                stamp.touch()
            self.releases = sorted(
                hashlib.sha256(path.read_bytes()).hexdigest()
                for path in lists.iterdir()
                if path.name.endswith(("_InRelease", "_Release"))
            )

    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "state" / "status",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
        }
        return [
            "-q",
            *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")),
        ]

    def key(self, *more: str) -> str:
        """What names a layer made of this archive as it is now."""
        text = "\n".join([FORMAT, self.suite, *self.lines, *self.releases, *more])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def _base(archive: _Archive, progress: Progress, reference: str) -> Path:
    name = f"deb-{archive.suite}-{archive.key('base')}"
    with locks.waiting(store.layers() / f".{name}.lock"):
        if (store.layers() / name).is_dir():
            return store.layers() / name
        progress(f"{reference}: making the base of {archive.suite}, about 20 s")
        with store.building() as temporary:
            root = temporary / "root"
            command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
            for option in DPKG_OPTIONS:
                command.append(f"--dpkgopt={option}")
            command.append(f"--aptopt={archive.folder / 'apt.conf'}")
            command += ['--aptopt=Acquire::Languages "none";', archive.suite, str(root)]
            _run([*command, str(archive.folder / "sources.list")], reference, progress)
            _finish_base(root)
            return _keep(root, name, archive, ())


def _finish_base(root: Path) -> None:
    # How this machine reaches the archive is its own affair; the exclusions stay.
    (root / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text(
        "#!/bin/sh\n# A package that is installed starts no service here.\nexit 101\n"
    )
    policy.chmod(0o755)
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/machine-id").write_text("")
    for path in (root / "var/log").glob("*.log"):
        path.unlink()


def _packages(
    archive: _Archive, base: Path, names: tuple[str, ...], progress: Progress, reference: str
) -> Path:
    name = f"deb-{archive.suite}-{archive.key(base.name, *names)}"
    with locks.waiting(store.layers() / f".{name}.lock"):
        if (store.layers() / name).is_dir():
            return store.layers() / name
        progress(f"{reference}: installing {' '.join(names)}")
        with store.building() as temporary:
            for folder in ("upper", "work", "root", "archives/partial"):
                (temporary / folder).mkdir(parents=True)
            (temporary / "upper").chmod(0o755)
            plan = {
                "base": str(base),
                "folder": str(temporary),
                "lists": str(archive.folder / "lists"),
                "settings": apt_sources.settings(),
                "packages": list(names),
                "certificates": next(
                    (
                        path
                        for path in ("/etc/ssl/certs/ca-certificates.crt",)
                        if Path(path).exists()
                    ),
                    "",
                ),
            }
            (temporary / "plan.json").write_text(json.dumps(plan))
            source = str(Path(__file__).resolve().parents[3])
            # A mount and a pid namespace of their own: when this is killed, nothing stays.
            jail = [
                "unshare",
                "--mount",
                "--pid",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child",
                "--propagation=private",
            ]
            python = [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _CHROOT,
                str(temporary / "plan.json"),
                source,
            ]
            _run([*jail, *python], reference, progress)
            return _keep(temporary / "upper", name, archive, names, temporary / "versions")


def _keep(
    root: Path,
    name: str,
    archive: _Archive,
    packages: tuple[str, ...],
    versions: Path | None = None,
) -> Path:
    if versions is None:
        # dpkg's own database, read from outside: no program of the root is run for it.
        text = (root / "var/lib/dpkg/status").read_text(errors="replace")
        found = re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)", text, re.MULTILINE)
        listed = [f"{package} {version}" for package, version in found]
    else:
        listed = versions.read_text().splitlines()
    manifest = {
        "suite": archive.suite,
        "packages": list(packages),
        "sources": archive.lines,
        "releases": archive.releases,
        "versions": sorted(listed),
        "size": store.size(root),
    }
    files.write_json(store.layers() / f"{name}.json", manifest, 0o644)
    return store.keep(root, name)


def _run(command: list[str], reference: str, progress: Progress, *, quiet: bool = False) -> None:
    """Run a builder, pass on what it is at, and turn its failure into an ImageError."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    # Debian's programs lie there, whatever PATH the caller has.
    environment["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=40)
    try:
        for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            if line:
                last.append(line)
            if not quiet and line.startswith(("Unpacking ", "Setting up ", "I: ")):
                progress(f"{reference}: {line.removeprefix('I: ')}")
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code:
        raise _failure(list(last), reference, code)


def _failure(lines: list[str], reference: str, code: int) -> ImageError:
    text = "\n".join(lines)
    if "No space left on device" in text or "enough free space" in text:
        return store.no_space(reference)
    if missing := re.findall(
        r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate", text
    ):
        names = ", ".join(first or second for first, second in missing)
        return ImageError(
            f"{reference}: the archive has no package {names}",
            hint="apt-cache search finds its name",
        )
    if "404 " in text or "does not have a Release file" in text:
        suite = reference.removeprefix("deb://").partition("?")[0]
        return ImageError(
            f"{reference}: the archive has no suite '{suite}'", hint="as in deb://bookworm"
        )
    if any(
        sign in text
        for sign in (
            "Could not resolve",
            "Could not connect",
            "Connection refused",
            "Connection timed out",
            "Unable to connect",
        )
    ):
        return ImageError(
            f"{reference}: the archive cannot be reached", hint="does `apt-get update` work here?"
        )
    errors = [line for line in lines if line.startswith(("E:", "dpkg:", "error"))] or lines[-3:]
    return ImageError(f"{reference}: it could not be made (exit {code}): {'; '.join(errors[-3:])}")
