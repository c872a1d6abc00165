"""This Bazaar as a folder that runs elsewhere, with the one library that its commands need."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.host import paths

_LAUNCH = """\
import sys

sys.path.insert(0, __file__.rpartition("/")[0] + "/lib")
from bazaar.__main__ import main

sys.exit(main())
"""
_PACKAGES = ("bazaar", "click")
_ENDINGS = (".py", ".sh", ".json", ".c")


def folder() -> Path:
    """Where it lies here, named by its content; made where it is not."""
    sources = {
        f"lib/{package}/{name}": path for package in _PACKAGES for name, path in _of(package)
    }
    whole = hashlib.sha256(_LAUNCH.encode())
    for name, path in sorted(sources.items()):
        whole.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    made = paths.cache() / "agent" / whole.hexdigest()[:16]
    if made.is_dir():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".unfinished-") as temporary:
        draft = Path(temporary) / "whole"
        for name, path in sources.items():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (draft / "launch").write_text(_LAUNCH)
        if not made.is_dir():  # somebody was quicker
            draft.rename(made)
    return made


def _of(package: str) -> Iterator[tuple[str, Path]]:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingError(f"{package} is not installed as files: it cannot be taken elsewhere")
    root = Path(found.submodule_search_locations[0])
    for path in sorted(root.rglob("*")):
        if path.suffix in _ENDINGS and path.is_file():
            yield str(path.relative_to(root)), path
