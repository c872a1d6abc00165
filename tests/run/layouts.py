"""Writers of OCI image layouts and tar archives for tests; no blob is checked in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def member(name: str, *, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields) -> tuple:
    """One member of an archive and its content."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mode = fields.pop("mode", 0o755 if kind == tarfile.DIRTYPE else 0o644)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def archive(*members: tuple) -> bytes:
    """A tar archive of these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compress(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout
    return data


class Layout:
    """An OCI image layout being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes) -> dict:
        name = digest(data)
        (self.folder / "blobs" / "sha256" / name.removeprefix("sha256:")).write_bytes(data)
        return {"digest": name, "size": len(data)}

    def image(self, *layers: bytes, how: str = "gzip", tag: str = "latest", **config) -> dict:
        """Add an image of plain tar archives; returns its manifest's descriptor."""
        suffix = {"gzip": "+gzip", "zstd": "+zstd"}.get(how, "")
        blobs = [
            {
                "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix}",
                **self.blob(compress(layer, how)),
            }
            for layer in layers
        ]
        document = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        described = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **self.blob(json.dumps(document).encode()),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described,
            "layers": blobs,
        }
        entry = {
            "mediaType": manifest["mediaType"],
            **self.blob(json.dumps(manifest).encode()),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        self.index(entry)
        return entry

    def index(self, *entries: dict) -> None:
        text = json.dumps({"schemaVersion": 2, "manifests": list(entries)})
        (self.folder / "index.json").write_text(text)


def static_shell() -> list[tuple]:
    """Members of a minimal root: a shell and some tools with the libraries they need.

    Taken from this machine, so that no image has to be had from anywhere.
    """
    programs = [
        "/bin/sh",
        "/bin/cat",
        "/bin/ls",
        "/usr/bin/id",
        "/bin/sleep",
        "/usr/bin/env",
        "/bin/touch",
        "/bin/cp",
    ]
    files: dict[str, Path] = {}
    for program in programs:
        path = Path(shutil.which(program) or program)
        files[program] = path.resolve()
        listed = subprocess.run(
            ["ldd", str(path)], capture_output=True, text=True, check=True
        ).stdout
        for word in listed.split():
            if word.startswith("/"):
                files[word] = Path(word).resolve()
    folders = sorted(
        {str(parent) for name in files for parent in Path(name).parents if str(parent) != "/"}
    )
    members = [member(folder.lstrip("/"), kind=tarfile.DIRTYPE) for folder in folders]
    members += [member(name, kind=tarfile.DIRTYPE) for name in ("etc", "tmp", "proc", "sys", "dev")]
    for name, path in sorted(files.items()):
        members.append(member(name.lstrip("/"), data=path.read_bytes(), mode=0o755))
    members.append(
        member(
            "etc/passwd",
            data=b"root:x:0:0:root:/root:/bin/sh\nann:x:1234:1234::/home/ann:/bin/sh\n",
        )
    )
    members.append(member("etc/group", data=b"root:x:0:\nann:x:1234:\nblue:x:77:ann\n"))
    return members
