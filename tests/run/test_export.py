"""An image that is packed and unpacked again is the same image."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from bazaar.model.container import Image, ImageConfig
from bazaar.run.images import export, oci, store


@pytest.fixture
def layers(cache, tmp_path) -> list[Path]:
    """Two layers with everything an image may hold, where layers are kept."""
    if os.geteuid() != 0:
        pytest.skip("whiteouts take root")
    low, high = (store.layers() / name for name in ("low", "high"))
    for layer in (low, high):
        layer.mkdir(parents=True, mode=0o755)
    (low / "bin").mkdir()
    (low / "bin/su").write_bytes(b"\x7fELF" + bytes(5000))
    (low / "bin/su").chmod(0o4755)
    os.link(low / "bin/su", low / "bin/sudo")
    (low / "bin/sh").symlink_to("su")
    os.setxattr(
        low / "bin/su", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12)
    )
    os.setxattr(low / "bin/su", "user.note", b"\xff\x00x")
    (low / "empty").touch()
    os.mkfifo(low / "pipe", 0o640)
    (low / "name with \n and ü").write_text("odd")
    os.chown(low / "empty", 33, 44)
    os.utime(low / "empty", (1, 1234567890))
    (low / "etc/old").mkdir(parents=True)
    (low / "etc/old/file").touch()
    os.mknod(low / "console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    os.mknod(high / "empty", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    (high / "etc/old").mkdir(parents=True)
    os.setxattr(high / "etc/old", "trusted.overlay.opaque", b"y")
    (high / ("d" * 120) / ("e" * 120)).mkdir(parents=True)
    return [low, high]


def picture(layer: Path) -> dict[str, tuple]:
    found = {}
    for path in sorted(layer.rglob("*")):
        about = path.lstat()
        kept = [n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith("system.")]
        found[str(path.relative_to(layer))] = (
            stat.filemode(about.st_mode),
            about.st_uid,
            about.st_gid,
            about.st_rdev,
            about.st_nlink if path.is_file() else 0,
            # When a deletion happened is nobody's business.
            0 if stat.S_ISCHR(about.st_mode) else int(about.st_mtime),
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b"",
            [(name, os.getxattr(path, name, follow_symlinks=False)) for name in kept],
        )
    return found


def image(layers: list[Path]) -> Image:
    config = ImageConfig(
        entrypoint=("/bin/su",), environment=(("A", "1"),), user="www", exposed_ports=(80,)
    )
    return Image("test:image", "sha256:0", tuple(layers), config)


def test_there_and_back(layers, tmp_path):
    exported = export.export(image(layers), lambda _: None)
    folder = export.folder() / "layout"
    assert export.write(exported, folder) == sum(blob.size for blob in exported.blobs)
    taken = oci.load(folder, "test:image", "test:image", lambda _: None)
    assert taken.config.entrypoint == ("/bin/su",) and taken.config.user == "www"
    assert taken.config.environment == (("A", "1"),) and taken.config.exposed_ports == (80,)
    before = [picture(layer) for layer in layers]
    del before[0]["console"]  # devices are the engine's to make
    # A device is left out, and nothing else.
    assert [picture(layer) for layer in taken.layers] == before


def test_an_archive_is_made_once_and_always_the_same(layers):
    said: list[str] = []
    first = export.export(image(layers), said.append)
    assert said == ["packing low", "packing high"]
    assert export.export(image(layers), said.append) == first and len(said) == 2
    for kept in export.folder().iterdir():
        kept.unlink()
    assert export.export(image(layers), said.append) == first and len(said) == 4


def test_what_is_there_already_is_left_out(layers):
    exported = export.export(image(layers), lambda _: None)
    there = exported.blobs[2]
    folder = export.folder() / "layout"
    size = export.write(exported, folder, without=frozenset({there.digest}))
    assert size == sum(blob.size for blob in exported.blobs) - there.size
    assert not (folder / "blobs/sha256" / there.digest.removeprefix("sha256:")).exists()
    index = json.loads((folder / "index.json").read_text())
    assert index["manifests"][0]["digest"] == exported.manifest.digest


def test_an_image_that_goes_takes_its_archives_along(layers):
    whole = image(layers)
    store.remember(whole)
    export.export(whole, lambda _: None)
    assert len(list(export.folder().iterdir())) == 4
    store.forget(whole.reference)
    assert list(export.folder().iterdir()) == []


def test_without_zstd_archives_are_plain(layers, monkeypatch):
    monkeypatch.setattr(export.commands, "which", lambda program: None)
    exported = export.export(image(layers), lambda _: None)
    manifest = json.loads(exported.manifest.words)
    assert {layer["mediaType"] for layer in manifest["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar"
    }
    with tarfile.open(exported.blobs[3].path) as tar:
        assert {".wh.empty", "etc/old/.wh..wh..opq"} <= set(tar.getnames())
