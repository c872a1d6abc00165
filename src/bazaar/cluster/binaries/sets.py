"""Whole sets of programs in the cache.

    cluster/parts/NAME-KEY/     a part's programs, by whichever way they came, and `origin.json`
    cluster/KEY/bin/            a set: hard links of the parts' programs
    cluster/KEY/manifest.json   what each one is

A set's key is made of all that its programs are made of, so another go.mod is another set.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from bazaar.cluster.binaries import parts, sources
from bazaar.cluster.binaries.parts import NAMES, Part
from bazaar.errors import MissingError, StateError
from bazaar.host import files, go_build, locks, paths
from bazaar.model.record import record

Progress = Callable[[str], None]
_UNFINISHED = ".unfinished-"  # what a folder is called until it is whole


@record
class BinarySet:
    """The programs of a cluster, ready to be carried or bound to machines."""

    version: str  # of Kubernetes
    folder: Path  # holds the programs, each by its name, read-only
    digests: dict[str, str]  # a program's name: its SHA-256 in hexadecimal


def cached(version: str) -> BinarySet | None:
    """The set of this version if it is whole in the cache."""
    return _read(version, _folder() / _key(parts.of(version)))


def get(version: str, progress: Progress) -> BinarySet:
    """The set of this version: cached, else from the mirror named, the releases, or built.

    Raises MissingError with what each way said, ChecksumError when a download is not what its
    checksum says.
    """
    wanted = parts.of(version)
    target = _folder() / _key(wanted)
    if found := _read(version, target):
        return found
    progress(f"Kubernetes {version}: getting its programs")
    with locks.waiting(_folder() / "lock"):
        if found := _read(version, target):  # somebody else got it meanwhile
            return found
        _sweep()
        ways = _Ways(progress)
        made = [(part, _part(part, ways)) for part in wanted]
        _assemble(made, target, progress)
    found = _read(version, target)
    if not found:
        raise MissingError(f"{target} was changed while it was made", hint="run the same again")
    return found


def conformance(version: str, progress: Progress) -> dict[str, Path]:
    """Kubernetes' end-to-end tests, `e2e.test`, and `agnhost`, got as a set's programs are."""
    return _programs(parts.conformance(version), progress)


def containerd(progress: Progress) -> dict[str, Path]:
    """containerd, its shim for runc, and `ctr`, got as a set's programs are."""
    return _programs(parts.CONTAINERD, progress)


def addons(progress: Progress) -> dict[str, Path]:
    """The programs of what clusters have besides, got as a set's programs are."""
    return _programs(parts.ADDONS, progress)


def _programs(wanted: tuple[Part, ...], progress: Progress) -> dict[str, Path]:
    """Each program of some parts, where it lies in the cache."""
    found = {name: _target(part) / name for part in wanted for name in part.packages}
    if all(path.is_file() for path in found.values()):
        return found  # whoever builds others is not waited for
    with locks.waiting(_folder() / "lock"):
        _sweep()
        ways = _Ways(progress)
        for part in wanted:
            _part(part, ways)
    return found


def _target(part: Part) -> Path:
    return _folder() / "parts" / f"{part.module}-{_part_key(part)}"


class _Ways:
    """The ways of getting a part; whether the releases can be reached is asked once."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._mirror = sources.mirror()
        self._reachable: bool | None = None

    def make(self, part: Part, folder: Path) -> str:
        """Get a part's programs into ``folder``; where they came from."""
        reasons: list[str] = []
        hint = ""
        for way in (self._from_mirror, self._from_release, self._build):
            try:
                if origin := way(part, folder):
                    return origin
            except MissingError as error:
                reasons.append(error.message)
                hint = f"{error.hint}; or " if error.hint else ""
            for path in folder.iterdir():  # what this way got before it failed
                path.unlink()
        raise MissingError(
            f"{part.title} cannot be had: " + "; ".join(reasons),
            hint=f"{hint}name a mirror that has it, an address or a folder, in {sources.VARIABLE}",
        )

    def _from_mirror(self, part: Part, folder: Path) -> str:
        if not self._mirror or not part.releases:
            return ""
        sources.download(part, self._mirror, folder, self.progress)
        return self._mirror

    def _from_release(self, part: Part, folder: Path) -> str:
        if not part.host:
            return ""
        if self._reachable is None:
            self.progress("asking whether releases can be reached")
            self._reachable = sources.reachable()
        if not self._reachable:
            raise MissingError("releases cannot be reached")
        sources.download(part, part.host, folder, self.progress)
        return part.host

    def _build(self, part: Part, folder: Path) -> str:
        count = len(part.packages)
        what = f"{count} programs" if count > 1 else "it"
        self.progress(f"{part.title}: building {what} from the Go module")
        began = time.monotonic()
        client = go_build.build(part.recipe, folder, self.progress)
        for name, package in part.packages.items():
            (folder / parts.built_name(package, test=part.test)).rename(folder / name)
        self.progress(f"{part.title}: built in {time.monotonic() - began:.0f} s")
        return client.version


def _part(part: Part, ways: _Ways) -> Path:
    """The folder of a part's programs; got when it is not there."""
    target = _target(part)
    if all((target / name).is_file() for name in part.packages):
        return target
    _remove(target)
    with _unfinished(target) as folder:
        origin = ways.make(part, folder)
        for name in part.packages:
            (folder / name).chmod(0o555)
        files.write_json(folder / "origin.json", {"version": part.version, "origin": origin}, 0o444)
        folder.chmod(0o755)
        folder.rename(target)
    return target


def _assemble(made: list[tuple[Part, Path]], target: Path, progress: Progress) -> None:
    """Make a set of its parts."""
    progress("binaries: taking their checksums")
    _remove(target)  # one that lost files
    with _unfinished(target) as folder:
        manifest: dict[str, Any] = {}
        (folder / "bin").mkdir()
        for part, source in made:
            origin = files.read_json(source / "origin.json")
            for name in part.packages:
                program = folder / "bin" / name
                os.link(source / name, program)
                size, digest = program.stat().st_size, files.digest(program)
                manifest[name] = {**origin, "sha256": digest, "size": size}
        files.write_json(folder / "manifest.json", manifest, 0o444)
        (folder / "bin").chmod(0o555)
        folder.chmod(0o755)
        folder.rename(target)


def _read(version: str, target: Path) -> BinarySet | None:
    """The set in ``target`` if all its files are there and of the right size."""
    try:
        manifest: dict[str, dict[str, Any]] = files.read_json(target / "manifest.json") or {}
        for name in NAMES:
            if (target / "bin" / name).stat().st_size != manifest[name]["size"]:
                return None
        return BinarySet(
            version, target / "bin", {name: str(manifest[name]["sha256"]) for name in NAMES}
        )
    except (OSError, KeyError, TypeError, StateError):
        return None


def _key(wanted: tuple[Part, ...]) -> str:
    words = [f"{part.module}-{_part_key(part)}" for part in wanted]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def _part_key(part: Part) -> str:
    words = [part.name, part.version, go_build.key(part.recipe)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _folder() -> Path:
    return paths.cache() / "cluster"


@contextlib.contextmanager
def _unfinished(target: Path) -> Generator[Path]:
    """A folder beside ``target`` to make it in: renamed when it is whole, else gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=_UNFINISHED))
    try:
        yield folder
    finally:
        _remove(folder)


def _sweep() -> None:
    """Take away what a process that was killed left unfinished; the lock is held."""
    for folder in (_folder(), _folder() / "parts"):
        for path in folder.glob(f"{_UNFINISHED}*"):
            _remove(path)


def _remove(folder: Path) -> None:
    """Remove a folder whose own folders may be read-only."""
    if folder.is_dir():
        for path in folder.glob("*/"):
            path.chmod(0o755)
        # A Go client whose caller was killed may still be writing there.
        shutil.rmtree(folder, ignore_errors=True)
