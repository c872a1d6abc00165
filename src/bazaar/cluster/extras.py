"""What machines are given besides Kubernetes' programs: images, gVisor, add-ons.

A folder like those of `binaries`: ``bin/`` and, written last, ``manifest.json``.
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
from collections.abc import Mapping
from pathlib import Path

from bazaar.cluster import metrics, storage
from bazaar.cluster.parts import Programs
from bazaar.cluster.worker import PAUSE
from bazaar.host import files, paths

PAUSE_ARCHIVE = "pause.tar"


def make(pause: Path, runsc: Path | None, addons: Mapping[str, Path] | None = None) -> Programs:
    """The set with an image of the program ``pause`` and, where they can be had, the rest.

    That is gVisor's runsc, and the programs of add-ons as `binaries.addons` names them.
    """
    images = [(PAUSE_ARCHIVE, PAUSE, {"pause": pause})]
    programs = {} if runsc is None else {"runsc": runsc}
    if addons:
        inside = {name: addons[name] for name in ("local-path-provisioner", "volume")}
        images.append((storage.ARCHIVE, storage.IMAGE, inside))
        programs[metrics.PROGRAM] = addons[metrics.PROGRAM]
    sources = [*programs.items(), *(one for image in images for one in image[2].items())]
    named = [(name, files.digest(path)) for name, path in sources]
    key = hashlib.sha256(json.dumps([named, [one[:2] for one in images]]).encode()).hexdigest()[:16]
    target = paths.cache() / "cluster" / f"extras-{key}"
    if not (target / "manifest.json").is_file():
        _fill(target, images, programs)
    return Programs("", str(target), of(target), (*programs, *(one[0] for one in images)))


def of(folder: Path) -> str:
    """The digest of a set's manifest: what tells that a machine has the set, whole."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _fill(
    target: Path, images: list[tuple[str, str, dict[str, Path]]], programs: dict[str, Path]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as made:
        folder = Path(made) / "set"
        (folder / "bin").mkdir(parents=True)
        for archive, name, inside in images:
            (first, program), *further = inside.items()
            rest = {one: path.read_bytes() for one, path in further}
            content = image(program.read_bytes(), name, f"/{first}", rest)
            (folder / "bin" / archive).write_bytes(content)
        for name, path in programs.items():
            shutil.copyfile(path, folder / "bin" / name)
            (folder / "bin" / name).chmod(0o555)
        digests = {path.name: files.digest(path) for path in (folder / "bin").iterdir()}
        files.write_json(folder / "manifest.json", digests, 0o444)
        shutil.rmtree(target, ignore_errors=True)  # one that was not whole
        with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile
            os.rename(folder, target)


def image(
    program: bytes, name: str, path: str = "/pause", further: Mapping[str, bytes] | None = None
) -> bytes:
    """An image of static programs, as a tar that containerd imports (OCI image layout 1.0).

    The first is what it runs. The same programs make the same bytes.
    """
    programs = {path.lstrip("/"): program, **(further or {})}
    layer = _tar({name: (content, 0o755) for name, content in programs.items()})
    return image_of(layer, name, {"Entrypoint": [path], "User": "65535:65535"})


def image_of(layer: bytes, name: str, config: Mapping[str, object]) -> bytes:
    """An image of one layer, a tar, with this configuration (OCI image config 1.0)."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    machine = os.uname().machine
    about = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(about), "config.v1+json"),
        "layers": [blob(layer, "layer.v1.tar")],
    }
    named = {
        **blob(_json(manifest), "manifest.v1+json"),
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "manifests": [named]}
    parts = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        **blobs,
    }
    return _tar({path: (content, 0o644) for path, content in parts.items()})


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(entries: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (content, mode) in entries.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
