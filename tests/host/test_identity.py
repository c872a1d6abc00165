"""Names of containers from real cgroup directories."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.host import identity
from bazaar.host.identity import (
    GONE,
    HOST,
    Names,
    container_of,
    container_of_process,
    hierarchy,
    is_gone,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made by root")
ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", None),
        ("/system.slice/ssh.service", None),
        (f"/docker/{ID}", "docker-0123456789ab"),
        (f"/system.slice/docker-{ID}.scope", "docker-0123456789ab"),
        (
            f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope",
            "containerd-0123456789ab",
        ),
        (f"/kubepods/besteffort/pod1/{ID}", "container-0123456789ab"),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman-0123456789ab"),
        ("/machine.slice/machine-web\\x2d1.scope", "web-1"),
    ],
)
def test_paths_of_other_runtimes(path: str, name: str | None):
    assert container_of(path) == name


@pytest.fixture
def folders() -> Iterator[Path]:
    root = hierarchy()
    if root is None:
        pytest.skip("there is no cgroup v2 hierarchy")
    name = f"t{os.getpid()}.{uuid.uuid4().hex[:8]}"
    made = [
        root / "bazaar" / name,
        root / "bazaar" / name / "inner",
        root / f"docker-{ID[:56]}{uuid.uuid4().hex[:8]}.scope",
    ]
    for path in made:
        path.mkdir(parents=True)
    yield made[0]
    for path in reversed(made):
        if path.exists():
            path.rmdir()
    if not any(entry.is_dir() for entry in (root / "bazaar").iterdir()):
        (root / "bazaar").rmdir()


@needs_root
def test_ids_of_cgroups_have_names(folders: Path, state: Path):
    root = hierarchy()
    assert root is not None
    described = state / "containers" / folders.name
    described.mkdir(parents=True)
    (described / "container.json").write_text('{"name": "shop/paris/2", "engine": "gvisor"}')
    names = Names()
    inner = (folders / "inner").stat().st_ino
    own = folders.stat().st_ino
    docker = next(root.glob(f"docker-{ID[:56]}*.scope")).stat().st_ino
    assert names.name(root.stat().st_ino) == HOST
    # A gVisor container's threads are its engine's, and are never shown as the application.
    assert names.name(own) == "shop/paris/2 (gvisor)"
    assert names.name(inner) == "shop/paris/2 (gvisor)"
    assert names.name(docker) == "docker-0123456789ab"
    (folders / "inner").rmdir()
    folders.rmdir()
    (described / "container.json").unlink()
    names.refresh()
    assert names.name(own) == "shop/paris/2 (gvisor)"
    assert Names(known=names.known).name(own) == "shop/paris/2 (gvisor)"
    assert names.name(1 << 40) == "cgroup (gone)"


@needs_root
def test_removed_cgroups_nobody_looked_at_share_a_name(folders: Path, state: Path):
    inner = folders / "inner"
    removed = inner.stat().st_ino
    live = folders.stat().st_ino
    root = hierarchy()
    assert root is not None
    assert not is_gone(root, removed)
    inner.rmdir()
    assert is_gone(root, removed)
    assert not is_gone(root, live)
    assert Names().name(removed) == GONE
    # A living one keeps its number where looking does not find it.
    unseen = Names()
    unseen.refresh = lambda **_: None  # type: ignore[method-assign]
    assert unseen.name(live) == f"cgroup {live}"
    assert unseen.name(removed) == GONE


@needs_root
@pytest.mark.parametrize("content", [None, "{", "[1]", '{"name": 5}'])
def test_a_damaged_state_file_leaves_the_id(folders: Path, state: Path, content: str | None):
    if content is not None:
        described = state / "containers" / folders.name
        described.mkdir(parents=True)
        (described / "container.json").write_text(content)
    assert Names().name(folders.stat().st_ino) == folders.name


@needs_root
def test_processes_belong_to_containers(folders: Path, state: Path):
    child = subprocess.Popen(["sleep", "60"])
    try:
        (folders / "cgroup.procs").write_text(str(child.pid))
        assert container_of_process(child.pid) == folders.name
    finally:
        child.kill()
        child.wait()
    assert container_of_process(child.pid) == HOST
    assert container_of_process(os.getpid()) == HOST


def test_without_a_hierarchy_everything_is_told_by_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identity, "hierarchy", lambda: None)
    assert Names().name(7) == "cgroup 7"
    assert Names().name(0) == HOST
