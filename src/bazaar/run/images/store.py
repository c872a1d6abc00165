"""Where images are kept: records by reference, layers by content.

images/HASH.json    one record a reference
layers/NAME/        one unpacked layer; appears by rename, so it is whole or not there

Layers keep the owners and modes of their images, setuid files too: `layers` is closed to others.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from bazaar.errors import ImageError
from bazaar.host import paths
from bazaar.model.container import Image, ImageConfig
from bazaar.typed import Any

YOUNG = 60.0  # seconds within which a builder may still be about to take its lock


def layers() -> Path:
    """The folder of all layers, closed to other users."""
    return paths.close(paths.cache() / "layers")


def _record(reference: str) -> Path:
    name = "".join(
        one if one.isascii() and (one.isalnum() or one in "-_=") else f"%{ord(one):x}."
        for one in reference
    )
    if len(name) > 200:
        import hashlib

        name = hashlib.sha256(reference.encode()).hexdigest()
    return paths.cache() / "images" / f"{name}.json"


def find(reference: str) -> Image | None:
    """The image remembered under ``reference``, when all its layers are there."""
    return _image(_read(_record(reference)), reference)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # it can be made again


def _image(value: Any, reference: str | None = None) -> Image | None:
    try:
        if reference is not None and value["reference"] != reference:
            return None
        config = value["config"]
        image = Image(
            reference=value["reference"],
            digest=value["digest"],
            layers=tuple(layers() / Path(name).name for name in value["layers"]),
            config=ImageConfig(
                entrypoint=tuple(config["entrypoint"]),
                command=tuple(config["command"]),
                environment=tuple((name, text) for name, text in config["environment"]),
                working_directory=config["working_directory"],
                user=config["user"],
                stop_signal=config["stop_signal"],
                exposed_ports=tuple(config["exposed_ports"]),
            ),
            size=value["size"],
            cached=True,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return image if all(layer.is_dir() for layer in image.layers) else None


def remember(image: Image) -> None:
    """Keep an image's record."""
    config = image.config
    value = {
        "reference": image.reference,
        "digest": image.digest,
        "layers": [layer.name for layer in image.layers],
        "size": image.size,
        "config": {name: getattr(config, name) for name in ImageConfig.__dataclass_fields__},
    }
    from bazaar.host import files

    files.write_json(_record(image.reference), value, 0o644)


def listing() -> list[Image]:
    """Every image whose layers are there."""
    found: list[Image] = []
    folder = paths.cache() / "images"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        # A record counts where `find` looks for it alone: one image is one row.
        if (image := _image(_read(path))) and _record(image.reference) == path:
            found.append(image)
    return sorted(found, key=lambda image: image.reference)


def forget(reference: str) -> bool:
    """Drop a record and the layers that no other has."""
    import shutil

    from bazaar.run.images import export

    image = find(reference)
    if image is None:
        return False
    used = {layer for other in listing() if other.reference != reference for layer in other.layers}
    _record(reference).unlink(missing_ok=True)
    for layer in image.layers:
        if layer not in used:
            # Renamed first: a half-removed layer must not be taken for a whole one.
            gone = layer.with_name(f".gone-{layer.name}")
            with contextlib.suppress(OSError):
                layer.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            layer.with_name(layer.name + ".json").unlink(missing_ok=True)
            export.drop(layer.name)
    return True


@contextlib.contextmanager
def building() -> Generator[Path]:
    """A folder beside the layers to build one in; gone afterwards, with mounts left in it."""
    import fcntl
    import shutil
    import tempfile

    folder = layers()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".building-"))
    held = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield temporary
    finally:
        os.close(held)
        from bazaar.host import mounts

        mounts.unmount_below(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what builders that were killed left: nobody holds its lock any more."""
    import fcntl
    import shutil
    import time

    from bazaar.host import mounts

    for stale in folder.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime < YOUNG:
                continue
            held = os.open(stale, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mounts.unmount_below(stale)
                shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(held)


def keep(built: Path, name: str) -> Path:
    """Make a built folder the layer ``name``; the one that is there already wins."""
    target = layers() / name
    try:
        built.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def size(folder: Path) -> int:
    """Bytes of all files below ``folder``, as they are long."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def no_space(what: str) -> ImageError:
    """The error of a full disk, naming where it is full."""
    import shutil

    folder = paths.cache()
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return ImageError(
        f"{what}: no space left in {folder} ({free >> 20} MB free)",
        hint="free some, remove images (bazaar images --remove), or set BAZAAR_CACHE",
    )
