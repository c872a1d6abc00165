"""A small root of this machine's own programs, unpacked once a session, and checks after tests."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

import pytest

from bazaar.host import cgroups, mounts, paths
from bazaar.model.container import ContainerSpec, Image, Limits
from bazaar.run import containers, engines
from tests.run import layouts

ENGINES = ["gvisor", "shared"]


@pytest.fixture(scope="session")
def root_image(tmp_path_factory) -> Image:
    """A `dir:` image with a shell and a few tools."""
    from bazaar.run import images
    from bazaar.run.images import unpack

    folder = tmp_path_factory.mktemp("image")
    archive, root = folder / "layer.tar", folder / "root"
    archive.write_bytes(layouts.archive(*layouts.static_shell()))
    root.mkdir()
    unpack.layer(archive, root, what="the test's image")
    return images.ensure(f"dir:{root}", lambda _: None)


@pytest.fixture(params=ENGINES)
def engine(request) -> str:
    return usable(request.param)


def usable(name: str) -> str:
    status = next(one for one in engines.available() if one.name == name)
    if status.problem:
        pytest.skip(f"engine {name}: {status.problem}")
    if os.geteuid() != 0:
        pytest.skip("containers take root")
    return name


def needs_limits() -> None:
    """Skip where this machine cannot keep limits."""
    limits = Limits(memory=64 << 20, cpus=0.5, pids=7)
    if reason := cgroups.problem(limits):
        pytest.skip(f"limits: {reason}")


@pytest.fixture
def gvisor() -> str:
    return usable("gvisor")


@pytest.fixture
def make(root_image, state):
    """Makes specs with ids of their own; whatever the test left of them is a failure."""
    made: list[str] = []

    def spec(*command: str, **fields) -> ContainerSpec:
        name = fields.pop("name", f"t{os.getpid()}-{uuid.uuid4().hex[:6]}")
        made.append(f"run.{name}")
        return ContainerSpec(
            f"run.{name}", name, fields.pop("image", root_image), command=command, **fields
        )

    yield spec
    for container in made:
        containers.remove(container, force=True, timeout=1)
        assert not left(container)


def left(container: str, patience: float = 3.0) -> list[str]:
    """What remains of a container: processes, mounts, control groups, files."""
    deadline = time.monotonic() + patience
    while True:
        found = [str(path) for path in (paths.containers() / container,) if path.exists()]
        found += [point.target for point in mounts.mounted() if f"/{container}/" in point.target]
        found += [name for name in cgroups.names() if name == container]
        found += processes_of(container)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def processes_of(container: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            said = [word.decode(errors="replace").rstrip("/+") for word in words]
            if any(word.endswith(container) for word in said):
                found.append(f"{entry.name} {words[:2]}")
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own, with the engine that is there."""
    folder = tmp_path / "cache"
    status = next(one for one in engines.available() if one.name == "gvisor")
    if status.path:
        monkeypatch.setenv("BAZAAR_RUNSC", str(status.path))
    monkeypatch.setenv("BAZAAR_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
