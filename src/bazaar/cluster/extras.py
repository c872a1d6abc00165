"""What machines are given besides Kubernetes' programs: the image of `pause`, and gVisor.

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
from pathlib import Path

from bazaar.cluster.parts import Programs
from bazaar.cluster.worker import PAUSE
from bazaar.host import files, paths


def make(pause: Path, runsc: Path | None) -> Programs:
    """The set with an image of the program ``pause`` and, where it can be had, gVisor's runsc."""
    contents = {"pause.tar": image(pause.read_bytes(), PAUSE)}
    sources: dict[str, Path] = {} if runsc is None else {"runsc": runsc}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    for name, path in sources.items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    key = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
    target = paths.cache() / "cluster" / f"extras-{key}"
    if not (target / "manifest.json").is_file():
        _fill(target, contents, sources, digests)
    return Programs("", str(target), of(target))


def of(folder: Path) -> str:
    """The digest of a set's manifest: what tells that a machine has the set, whole."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _fill(
    target: Path, contents: dict[str, bytes], sources: dict[str, Path], digests: dict[str, str]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as made:
        folder = Path(made) / "set"
        (folder / "bin").mkdir(parents=True)
        for name, content in contents.items():
            (folder / "bin" / name).write_bytes(content)
        for name, path in sources.items():
            shutil.copyfile(path, folder / "bin" / name)
            (folder / "bin" / name).chmod(0o555)
        files.write_json(folder / "manifest.json", digests, 0o444)
        shutil.rmtree(target, ignore_errors=True)  # one that was not whole
        with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile
            os.rename(folder, target)


def image(program: bytes, name: str, path: str = "/pause") -> bytes:
    """An image of one static program, as a tar that containerd imports (OCI image layout 1.0).

    The same program makes the same bytes.
    """
    layer = _tar({path.lstrip("/"): (program, 0o755)})
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    machine = os.uname().machine
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": [path], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(config), "config.v1+json"),
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
