"""Containers where control groups may not be made, as inside other containers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid

import pytest

from bazaar.host import identity, mounts, paths
from bazaar.host.files import write_json
from bazaar.host.identity import Names
from tests.run.conftest import left

CAP_MKNOD = 1 << 27


def run(image, kinds, *words):
    """`bazaar run` in a mount namespace in which hierarchies of those kinds are read-only."""
    name = f"t{os.getpid()}-{uuid.uuid4().hex[:6]}"
    targets = [point.target for point in mounts.mounted() if point.kind in kinds]
    assert targets
    lines = [f"mount -o remount,bind,ro {shlex.quote(target)}" for target in targets]
    lines.append('exec "$@"')
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-ec", "\n".join(lines), "sh"),
            *(sys.executable, "-m", "bazaar", "run", "--rm", "--name", name, *words),
        ],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert not left(f"run.{name}")
    return done


# Read-only v1 controllers beside a writable v2 hierarchy are what systemd-nspawn gives.
@pytest.mark.parametrize("kinds", [{"cgroup"}, {"cgroup", "cgroup2"}], ids=["v1", "all"])
def test_a_container_runs_all_the_same(engine, root_image, state, kinds):
    if not any(point.kind in kinds for point in mounts.mounted()):
        pytest.skip(f"no hierarchy of {kinds} is mounted")
    done = run(
        root_image, kinds, "--engine", engine, root_image.reference, "/bin/sh", "-c", "exit 7"
    )
    assert done.returncode == 7, done.stderr


def test_probes_can_tell_the_container(root_image, state, usable_shared):
    if identity.hierarchy() is None or not any(p.kind == "cgroup" for p in mounts.mounted()):
        pytest.skip("there are no v1 controllers beside a v2 hierarchy")
    command = "while read -r line; do echo $line; done < /proc/self/cgroup"
    done = run(
        root_image,
        {"cgroup"},
        *("--engine", "shared", root_image.reference, "/bin/sh", "-c", command),
    )
    place = next(line[3:] for line in done.stdout.splitlines() if line.startswith("0::"))
    folder = identity.hierarchy() / place.lstrip("/")
    container = folder.name.rstrip("+")
    assert container.startswith(f"run.t{os.getpid()}-"), done.stdout
    # There again, with the state the container had: is it known by its name?
    folder.mkdir(parents=True)
    try:
        write_json(paths.containers() / container / "container.json", {"name": "mine"})
        assert Names().name(folder.stat().st_ino) == "mine"
    finally:
        folder.rmdir()


def test_without_a_device_group_no_device_can_be_made(root_image, state, usable_shared):
    command = "while read -r line; do echo $line; done < /proc/self/status"
    done = run(
        root_image,
        {"cgroup", "cgroup2"},
        *("--engine", "shared", root_image.reference, "/bin/sh", "-c", command),
    )
    held = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert held, done.stderr
    for name in ("CapBnd", "CapEff", "CapPrm"):
        assert not int(held[name], 16) & CAP_MKNOD


def test_limits_that_cannot_be_kept_are_refused(engine, root_image, state):
    done = run(
        root_image,
        {"cgroup", "cgroup2"},
        *("--engine", engine, "--memory", "64m", root_image.reference, "/bin/true"),
    )
    assert done.returncode == 125
    assert "limits cannot be kept here" in done.stderr
    assert "read-only" in done.stderr


@pytest.fixture
def usable_shared():
    from tests.run.conftest import usable

    return usable("shared")
