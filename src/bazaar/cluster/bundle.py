"""All that an installation needs, in one file: for machines, and for whom, the world is far.

    list.json     every other file with its size, mode and SHA-256; what the sets are called
    list.sig      the list's signature, Ed25519 (RFC 8032)
    kubernetes/   the programs of one version, as `binaries` makes them
    extras/       what machines are given besides, as `extras` makes it
    packages/     the distribution's own: an archive that apt reads

The list comes first. Nothing is believed, nor written where it will be used, before its signature
and each file's digest are right.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bazaar.cluster.parts import Programs
from bazaar.errors import ChecksumError, StateError, UsageError
from bazaar.host import files, paths
from bazaar.model.record import names as fields
from bazaar.model.record import record

KEY_FILE = "BAZAAR_BUNDLE_KEY_FILE"
FORMAT = "bazaar bundle 1"
_LIST, _SIGNATURE = "list.json", "list.sig"
_LARGEST_LIST = 4 << 20
_CHUNK = 1 << 20


@record
class Contents:
    """What a bundle holds, by its list."""

    version: str  # of Kubernetes
    system: str  # whose packages are in it: "debian 12"; "" for none
    sets: Mapping[str, str]  # kubernetes, extras, packages: what the folder is called
    has: tuple[str, ...]  # of what may be among the extras
    files: Mapping[str, tuple[str, int, int]]  # path: SHA-256, size, mode


def key_file() -> Path:
    """The key that bundles are signed by, outside the state; its public half is beside, in .pub."""
    chosen = os.environ.get(KEY_FILE)
    return Path(chosen).absolute() if chosen else paths.settings() / "bundle.key"


def make(
    target: Path, kubernetes: Programs, extras: Programs, packages: Path | None, system: str
) -> int:
    """Write a bundle, whole or not at all; its size. The key is made where there is none."""
    folders = {"kubernetes": Path(kubernetes.folder), "extras": Path(extras.folder)}
    if packages is not None:
        folders["packages"] = packages
    listed: dict[str, Any] = {}
    sources: dict[str, Path] = {}
    for kind, folder in folders.items():
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = f"{kind}/{path.relative_to(folder)}"
            about = path.stat()
            listed[name] = [files.digest(path), about.st_size, about.st_mode & 0o777]
            sources[name] = path
    told = {
        "format": FORMAT,
        "version": kubernetes.version,
        "system": system if packages is not None else "",
        "sets": {kind: folder.name for kind, folder in folders.items()},
        "has": list(extras.has),
        "files": listed,
    }
    text = json.dumps(told, indent=1, sort_keys=True).encode()
    part = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in ((_LIST, text), (_SIGNATURE, _sign(text))):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
            for name, path in sources.items():
                archive.add(path, name)
        part.replace(target)
    except OSError as error:
        raise StateError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def taken(version: str) -> tuple[Programs, Programs] | None:
    """Kubernetes' programs of a version, and what there is besides, where a bundle brought them."""
    known: dict[str, list[dict[str, Any]]] = files.read_json(_record()) or {}
    about = known.get(version)
    if about is None:
        return None
    found: list[Programs] = []
    for one in about:
        plain: dict[str, Any] = {**one, "has": tuple(one["has"])}
        found.append(Programs(**plain))
    if not all((Path(one.folder) / "manifest.json").is_file() for one in found):
        return None
    return found[0], found[1]


def _record() -> Path:
    """Which versions bundles brought: theirs are used rather than others."""
    return paths.cache() / "cluster" / "bundles.json"


def take(source: Path, public: Path | None) -> str:
    """Bring what a bundle holds into the cache, each file checked; its version of Kubernetes.

    ``public`` is whose signature is believed, None: our own. Raises ChecksumError where the
    signature or a file is not right, UsageError where there is no bundle.
    """
    with _opened(source) as archive:
        contents = _list_of(source, archive, public)
        places = {kind: paths.cache() / "cluster" / name for kind, name in contents.sets.items()}
        lacking = {
            kind: place for kind, place in places.items() if not (place / "manifest.json").is_file()
        }
        _unpack(source, archive, contents, lacking)
    folders = {kind: str(place) for kind, place in places.items()}
    manifests = {kind: contents.files[f"{kind}/manifest.json"][0] for kind in places}
    kubernetes = Programs(
        contents.version,
        folders["kubernetes"],
        manifests["kubernetes"],
        packages=folders.get("packages", ""),
        system=contents.system,
    )
    extras = Programs("", folders["extras"], manifests["extras"], contents.has)
    known: dict[str, Any] = files.read_json(_record()) or {}
    brought = [{name: getattr(one, name) for name in fields(one)} for one in (kubernetes, extras)]
    files.write_json(_record(), {**known, contents.version: brought})
    return contents.version


@contextlib.contextmanager
def _opened(source: Path) -> Generator[tarfile.TarFile]:
    if not source.is_file():
        raise UsageError(f"{source}: there is no such file")
    try:
        with tarfile.open(source, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{source} is no bundle: {error}") from error
    except OSError as error:
        raise StateError(
            f"{source} cannot be taken: {error.filename or source}: {error.strerror or error}",
            hint="mend that, and run the same again: what was taken so far is gone",
        ) from error


def _list_of(source: Path, archive: tarfile.TarFile, public: Path | None) -> Contents:
    parts: list[bytes] = []
    for name in (_LIST, _SIGNATURE):
        member = archive.next()
        if member is None or member.name != name or member.size > _LARGEST_LIST:
            raise UsageError(f"{source} is no bundle: it does not begin with {name}")
        content = archive.extractfile(member)
        parts.append(content.read() if content else b"")
    _verify(source, parts[0], parts[1], public or key_file().with_name(f"{key_file().name}.pub"))
    try:
        told = json.loads(parts[0])
        if told["format"] != FORMAT:
            raise UsageError(f"{source}: {told['format']} is not known here")
        listed = {str(k): (str(d), int(n), int(m)) for k, (d, n, m) in told["files"].items()}
        sets = {str(kind): str(name) for kind, name in told["sets"].items()}
        for kind in {"kubernetes", "extras", *sets}:
            _ = sets[kind], listed[f"{kind}/manifest.json"]
        found = Contents(
            str(told["version"]), str(told["system"]), sets, tuple(told["has"]), listed
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{source}: its list is unreadable: {error}") from error
    names = [*sets.values(), *(part for path in listed for part in PurePosixPath(path).parts)]
    if any("/" in name or name in ("", ".", "..") for name in names):
        raise UsageError(f"{source}: its list names what is no file of a bundle")
    return found


def _unpack(
    source: Path, archive: tarfile.TarFile, contents: Contents, lacking: Mapping[str, Path]
) -> None:
    """Each set that is not there yet: beside its place, checked, then in it."""
    if not lacking:
        return
    parent = paths.cache() / "cluster"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".bundle-") as made:
        missing = {name for name in contents.files if name.partition("/")[0] in lacking}
        while (member := archive.next()) is not None:
            if member.name not in missing:
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise ChecksumError(f"{source}: {member.name} is no plain file: nothing was taken")
            _write(source, content, Path(made) / member.name, contents.files[member.name])
            missing.discard(member.name)
        if missing:
            raise ChecksumError(f"{source}: {sorted(missing)[0]} is not in it: nothing was taken")
        for kind, place in lacking.items():
            shutil.rmtree(place, ignore_errors=True)
            (Path(made) / kind).rename(place)


def _write(source: Path, content: IO[bytes], target: Path, about: tuple[str, int, int]) -> None:
    digest, size, mode = about
    target.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := content.read(_CHUNK):
            seen.update(chunk)
            file.write(chunk)
        if file.tell() != size or seen.hexdigest() != digest:
            raise ChecksumError(
                f"{source}: {target.name} is not what the list says: nothing was taken",
                hint="it was cut short or changed on the way; bring the bundle again",
            )
    target.chmod(mode)


# ------------------------------------------------------------------ signatures


def _sign(text: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = key_file()
    if path.exists():
        try:
            key = to.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise StateError(f"{path}: cannot be read as a key: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StateError(f"{path} is no Ed25519 key", hint=f"{KEY_FILE} names another one")
    else:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption())
        files.write_atomic(path, pem)
    public = key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
    files.write_atomic(path.with_name(f"{path.name}.pub"), public, 0o644)
    return key.sign(text)


def _verify(source: Path, text: bytes, signature: bytes, public: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public.read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no public key"
        raise UsageError(
            f"{public}: {why}",
            hint="name the public key of whoever made the bundle by --bundle-key",
        ) from error
    try:
        if not isinstance(key, Ed25519PublicKey):
            raise UsageError(f"{public} is no Ed25519 key")
        key.verify(signature, text)
    except InvalidSignature:
        raise ChecksumError(
            f"{source} is not signed by the key in {public}: nothing was taken",
            hint="name the public key of whoever made it by --bundle-key, if you trust them",
        ) from None
