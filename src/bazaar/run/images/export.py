"""Images as others take them: OCI image layouts of what lies here unpacked.

A layer becomes the same archive whoever makes it of the same files, so that its digest tells who
has it already (image specification 1.1: layer.md, config.md, image-layout.md). Archives are kept
beside the layers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from bazaar.errors import ImageError
from bazaar.host import commands, files, paths
from bazaar.model.container import Image
from bazaar.model.record import record
from bazaar.run.images import store
from bazaar.run.images.unpack import OPAQUE, WHITEOUT

Progress = Callable[[str], None]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CHUNK = 1 << 20


@record
class Blob:
    """A file of a layout, by its content: an archive that is kept, or a few words."""

    digest: str  # sha256:…
    size: int
    path: Path | None = None
    words: bytes = b""


@record
class Packed:
    """One layer as an archive."""

    blob: Blob
    media_type: str
    plain: str  # the digest of the archive before it was compressed: the layer's `diff_id`


@record
class Exported:
    """An image as a layout is made of it."""

    name: str  # by which it is known where it is taken to
    manifest: Blob
    blobs: tuple[Blob, ...]  # the manifest, the configuration, then the layers, lowest first


def export(image: Image, progress: Progress) -> Exported:
    """Pack what is not packed yet of an image, by its own name. Raises ImageError."""
    try:
        layers = [_packed(layer, progress) for layer in image.layers]
        config = _blob(_configuration(image, [layer.plain for layer in layers]))
        described = [_descriptor(layer.media_type, layer.blob) for layer in layers]
        manifest = _blob(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(_CONFIG, config),
                "layers": described,
            }
        )
    except OSError as error:
        raise ImageError(f"{image.reference} cannot be packed: {error}") from error
    return Exported(
        image.reference, manifest, (manifest, config, *(layer.blob for layer in layers))
    )


def write(image: Exported, folder: Path, without: frozenset[str] = frozenset()) -> int:
    """Make ``folder`` the layout of an image, but for blobs whose digests are in ``without``.

    Returns the bytes of its blobs.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    size = 0
    for blob in image.blobs:
        if blob.digest in without:
            continue
        target = blobs / blob.digest.removeprefix("sha256:")
        if blob.path is None:
            target.write_bytes(blob.words)
        else:
            os.link(blob.path, target)
        size += blob.size
    keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
    names = dict.fromkeys(keys, image.name)
    entry = {**_descriptor(MANIFEST, image.manifest), "annotations": names}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return size


def folder() -> Path:
    """Where archives are kept: as closed as the layers they are made of."""
    folder = paths.close(paths.cache() / "archives")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _blob(value: Any) -> Blob:
    words = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return Blob(f"sha256:{hashlib.sha256(words).hexdigest()}", len(words), words=words)


def _descriptor(kind: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def _configuration(image: Image, layers: list[str]) -> dict[str, Any]:
    config = image.config
    words: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Env": [f"{key}={value}" for key, value in config.environment],
        "WorkingDir": config.working_directory,
        "User": config.user,
        "StopSignal": config.stop_signal,
        "ExposedPorts": {f"{port}/tcp": {} for port in config.exposed_ports},
    }
    machine = platform.machine()
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {key: value for key, value in words.items() if value},
        "rootfs": {"type": "layers", "diff_ids": layers},
    }


def _packed(layer: Path, progress: Progress) -> Packed:
    """A layer's archive: the one that is kept, or a new one.

    What lies elsewhere than among the layers (`dir:`) may change: it is packed every time.
    """
    kept_in = folder()
    notes = kept_in / f"{layer.name}.json"
    if lasting := layer.parent == store.layers():
        try:
            known = json.loads(notes.read_text())
            path = kept_in / known["digest"].removeprefix("sha256:")
            blob = Blob(known["digest"], path.stat().st_size, path)
            return Packed(blob, known["media_type"], known["plain"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it can be made again
    progress(f"packing {layer.name}")
    compress = commands.which("zstd")
    descriptor, name = tempfile.mkstemp(dir=kept_in, prefix=".packing-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            plain = _archive(layer, file, compress)
            os.fsync(file.fileno())
        digest = files.digest(temporary)
        path = kept_in / digest
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    packed = Packed(
        Blob(f"sha256:{digest}", path.stat().st_size, path),
        f"{_LAYER}+zstd" if compress else _LAYER,
        plain,
    )
    if lasting:
        noted = {
            "digest": packed.blob.digest,
            "media_type": packed.media_type,
            "plain": packed.plain,
        }
        files.write_json(notes, noted)
    return packed


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, sink: IO[bytes]) -> None:
        self.sink = sink
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.sink.write(data)


def _archive(layer: Path, target: IO[bytes], compress: str | None) -> str:
    """Write a layer's archive; the digest of it before it is compressed."""
    if compress is None:
        return _members(layer, target)
    with subprocess.Popen(
        [compress, "-q", "-3", "-T0", "-c"], stdin=subprocess.PIPE, stdout=target
    ) as process:
        assert process.stdin is not None
        with process.stdin as sink:
            plain = _members(layer, sink)
    if process.returncode:
        raise ImageError(f"{layer.name} cannot be packed: zstd ended with {process.returncode}")
    return plain


def _members(layer: Path, sink: IO[bytes]) -> str:
    out = _Hashing(sink)
    first: dict[tuple[int, int], str] = {}  # of files with several names
    with tarfile.open(fileobj=cast("IO[bytes]", out), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        add = cast("Callable[..., None]", tar.addfile)
        for path in _below(layer):
            name = str(path.relative_to(layer))
            found = path.lstat()
            member = tarfile.TarInfo(name)
            member.mode = stat.S_IMODE(found.st_mode)
            member.uid, member.gid, member.mtime = found.st_uid, found.st_gid, int(found.st_mtime)
            if not _kind(member, path, found):
                continue
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                again = first.setdefault((found.st_dev, found.st_ino), name)
                if again != name:
                    member.type, member.linkname, member.size = tarfile.LNKTYPE, again, 0
            member.pax_headers = _attributes(path)
            if member.isreg() and member.size:
                with path.open("rb") as file:
                    add(member, file)
            else:
                add(member)
            if member.isdir() and _opaque(path):
                add(tarfile.TarInfo(f"{name}/{OPAQUE}"))
    return f"sha256:{out.digest.hexdigest()}"


def _below(folder: Path) -> Iterator[Path]:
    """Everything below a folder, each folder before what is in it, in the order of names."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _below(path)


def _kind(member: tarfile.TarInfo, path: Path, found: os.stat_result) -> bool:
    """Say what a member is; False for what images do not have: sockets, devices."""
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISREG(mode):
        member.size = found.st_size
    elif stat.S_ISLNK(mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(mode):
        member.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(mode) and found.st_rdev == 0:
        # The overlay's mark of a deletion.
        member.name = str(Path(member.name).with_name(WHITEOUT + path.name))
    else:
        return False
    return True


def _attributes(path: Path) -> dict[str, str]:
    """Extended attributes that are the image's, as GNU tar and containerd write them."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode(
            "utf-8", "surrogateescape"
        )
        for name in sorted(names)
        if name.startswith("user.") or name == "security.capability"
    }


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def drop(layer: str) -> None:
    """Forget the archive of a layer that is gone."""
    notes = folder() / f"{layer}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        digest = json.loads(notes.read_text())["digest"]
        (folder() / digest.removeprefix("sha256:")).unlink(missing_ok=True)
    notes.unlink(missing_ok=True)
