"""``oci:DIR[:TAG]``: an OCI image layout (image specification, image-layout.md) as an image.

Everything in it is checked against the digest that names it before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bazaar.errors import ImageError
from bazaar.host import files, locks
from bazaar.model.container import Image, ImageConfig
from bazaar.run.images import store, unpack

Progress = Callable[[str], None]
MAX_JSON = 4 << 20  # bytes; the distribution specification's own limit for a manifest
MAX_LAYERS = 127  # overlayfs and docker stop there, too
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INDEX = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def open_image(reference: str, progress: Progress) -> Image:
    """Unpack the layout that ``oci:DIR[:TAG]`` names. Raises ImageError."""
    text = reference.removeprefix("oci:")
    folder, tag = Path(text), ""
    if not folder.is_dir() and ":" in text:
        name, _, tag = text.rpartition(":")
        folder = Path(name)
    if not (folder / "index.json").is_file():
        raise ImageError(
            f"{reference}: {folder.absolute()} is no OCI image layout (it has no index.json)"
        )
    return load(folder, tag, reference, progress)


def load(folder: Path, tag: str, reference: str, progress: Progress) -> Image:
    """Unpack one image of a layout into the store."""
    layout = _Layout(folder, reference)
    digest, manifest = layout.manifest(tag)
    described = _object(manifest.get("config"), reference)
    config = layout.document(described)
    root = _object(config.get("rootfs"), reference)
    ids, blobs = _array(root.get("diff_ids")), _array(manifest.get("layers"))
    if len(ids) != len(blobs):
        raise ImageError(f"{reference}: its configuration and manifest disagree on its layers")
    if not 0 < len(blobs) <= MAX_LAYERS:
        raise ImageError(f"{reference}: {len(blobs)} layers; from 1 to {MAX_LAYERS} can be run")
    layers: list[Path] = []
    for number, (diff_id, blob) in enumerate(zip(ids, blobs, strict=True), 1):
        progress(f"{reference}: unpacking layer {number} of {len(blobs)}")
        layers.append(layout.layer(_digest(diff_id, reference), _object(blob, reference)))
    # The same layer twice changes nothing, and overlayfs refuses it.
    unique = list(dict.fromkeys(reversed(layers)))[::-1]
    return Image(
        reference, digest, tuple(unique), _config(config, reference), sum(map(store.size, unique))
    )


def _digest(value: Any, reference: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ImageError(f"{reference}: '{str(value)[:100]}' is no sha256 digest")
    return value


def _array(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _object(value: Any, reference: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ImageError(f"{reference}: its description is malformed")
    return cast("dict[str, Any]", value)


class _Layout:
    def __init__(self, folder: Path, reference: str) -> None:
        self.folder = folder
        self.reference = reference

    def _json(self, data: bytes, what: str) -> dict[str, Any]:
        try:
            return _object(json.loads(data), self.reference)
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{self.reference}: {what} is no JSON: {error}") from error

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_JSON + 1)
        except OSError as error:
            raise ImageError(f"{self.reference}: {path.name}: {error.strerror}") from error
        if len(data) > MAX_JSON:
            raise ImageError(f"{self.reference}: {path.name} is larger than {MAX_JSON >> 20} MB")
        return data

    def _blob(self, digest: str) -> Path:
        path = self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if path.is_symlink() or not path.is_file():
            raise ImageError(f"{self.reference}: blob {digest} is missing")
        return path

    def document(self, described: dict[str, Any]) -> dict[str, Any]:
        """A JSON blob, checked against its digest."""
        digest = _digest(described.get("digest"), self.reference)
        data = self._read(self._blob(digest))
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise ImageError(
                f"{self.reference}: blob {digest} is damaged: its content has another digest"
            )
        return self._json(data, digest)

    def manifest(self, tag: str) -> tuple[str, dict[str, Any]]:
        """The manifest for this machine, and its digest."""
        index = self._json(self._read(self.folder / "index.json"), "index.json")
        entries = self._entries(index)
        if tag:
            name = "org.opencontainers.image.ref.name"
            entries = [one for one in entries if self._part(one, "annotations").get(name) == tag]
        if not entries:
            raise ImageError(f"{self.reference}: the layout holds no such image")
        described = self._choose(entries)
        for _ in range(4):  # an index may name an index
            document = self.document(described)
            kind = document.get("mediaType") or described.get("mediaType")
            if kind not in _INDEX and "manifests" not in document:
                return str(described["digest"]), document
            described = self._choose(self._entries(document))
        raise ImageError(f"{self.reference}: indexes nested too deeply")

    def _entries(self, index: dict[str, Any]) -> list[dict[str, Any]]:
        return [_object(entry, self.reference) for entry in _array(index.get("manifests"))]

    def _part(self, entry: dict[str, Any], name: str) -> dict[str, Any]:
        return _object(entry.get(name) or {}, self.reference)

    def _choose(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        machine = ARCHITECTURES.get(platform.machine(), platform.machine())
        for entry in entries:
            place = self._part(entry, "platform")
            if not place or (place.get("architecture"), place.get("os")) == (machine, "linux"):
                return entry
        raise ImageError(f"{self.reference}: there is no version of it for linux/{machine}")

    def layer(self, diff_id: str, blob: dict[str, Any]) -> Path:
        """A layer unpacked in the store, under its diff_id; from there when it is known."""
        name = "sha256-" + diff_id.removeprefix("sha256:")[:32]
        with locks.waiting(store.layers() / f".{name}.lock"):
            if (store.layers() / name).is_dir():
                return store.layers() / name
            digest = _digest(blob.get("digest"), self.reference)
            path = self._blob(digest)
            _check(path, digest, self.reference)
            with store.building() as temporary:
                root = temporary / "root"
                root.mkdir(mode=0o755)
                found = unpack.layer(path, root, what=self.reference)
                if found != diff_id:
                    raise ImageError(
                        f"{self.reference}: layer {digest} is not what its configuration says"
                    )
                return store.keep(root, name)


def _check(path: Path, digest: str, reference: str) -> None:
    if "sha256:" + files.digest(path) != digest:
        raise ImageError(f"{reference}: blob {digest} is damaged: its content has another digest")


def _config(document: dict[str, Any], reference: str) -> ImageConfig:
    """The part of an image's configuration that decides how it runs."""
    config = _object(document.get("config") or {}, reference)

    def words(name: str) -> tuple[str, ...]:
        found = _array(config.get(name))
        if any(not isinstance(word, str) or "\0" in word for word in found):
            raise ImageError(f"{reference}: its {name} is malformed")
        return tuple(found)

    def text(name: str, default: str) -> str:
        value = config.get(name) or default
        if not isinstance(value, str) or "\0" in value:
            raise ImageError(f"{reference}: its {name} is malformed")
        return value

    ports = _object(config.get("ExposedPorts") or {}, reference)
    numbers = [int(port.split("/")[0]) for port in ports if re.fullmatch(r"\d{1,5}(/tcp)?", port)]
    return ImageConfig(
        entrypoint=words("Entrypoint"),
        command=words("Cmd"),
        environment=tuple(
            (name, value) for name, _, value in (word.partition("=") for word in words("Env"))
        ),
        working_directory=text("WorkingDir", "/"),
        user=text("User", ""),
        stop_signal=text("StopSignal", "SIGTERM"),
        exposed_ports=tuple(sorted(numbers)),
    )
