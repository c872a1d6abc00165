"""Control groups, for real, with names of the test's own."""

from __future__ import annotations

import os
import subprocess
import uuid

import pytest

from bazaar.errors import KernelError
from bazaar.host import cgroups, mounts
from bazaar.host.cgroups import Hierarchies
from bazaar.model.container import Limits

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /elsewhere/unified rw - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_where_they_are_mounted():
    found = cgroups.find(mounts.parse(HYBRID))
    assert str(found.v2) == "/elsewhere/unified"
    assert {name: str(path) for name, path in found.v1.items()} == {
        "cpu": "/sys/fs/cgroup/cpu",
        "cpuacct": "/sys/fs/cgroup/cpu",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert found.controllers() == {"cpu", "memory"}
    pure = cgroups.find(mounts.parse(HYBRID.splitlines()[-1]))
    assert str(pure.v2) == "/elsewhere/unified" and pure.v1 == {}


def test_what_is_missing_is_said(tmp_path):
    assert cgroups.problem(hierarchies=Hierarchies(None)) == "no cgroup hierarchy is mounted"
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    only = Hierarchies(tmp_path)
    assert cgroups.problem(Limits(memory=1), only) is None
    assert (
        cgroups.problem(Limits(memory=1, cpus=1.0, pids=1), only)
        == "no cgroup controller for cpu, pids"
    )
    assert cgroups.problem(Limits(memory=1), Hierarchies(tmp_path / "none")).endswith(
        "is read-only"
    )


def test_v2_alone_gets_controllers_and_limits(tmp_path):
    """The kernel makes these files; here folders stand for it, to see what is written where."""
    for folder in (tmp_path, tmp_path / "bazaar", tmp_path / "bazaar/x"):
        folder.mkdir(exist_ok=True)
        for name in (
            "cgroup.subtree_control",
            "memory.max",
            "cpu.max",
            "pids.max",
            "memory.oom.group",
        ):
            (folder / name).touch()
    (tmp_path / "cgroup.controllers").write_text("memory cpu pids io\n")
    cgroups.create("x", Limits(memory=1 << 20, cpus=0.5, pids=9), Hierarchies(tmp_path))
    written = {
        name: (tmp_path / "bazaar/x" / name).read_text()
        for name in ("memory.max", "cpu.max", "pids.max")
    }
    assert written == {"memory.max": "1048576", "cpu.max": "50000 100000", "pids.max": "9"}
    for parent in (tmp_path, tmp_path / "bazaar"):
        assert (parent / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"


@pytest.fixture
def name():
    if os.geteuid() != 0 or cgroups.problem():
        pytest.skip(f"control groups: {cgroups.problem() or 'they take root'}")
    chosen = f"t{os.getpid()}-{uuid.uuid4().hex[:8]}"
    yield chosen
    for pid in cgroups.processes(chosen):
        os.kill(pid, 9)
    cgroups.remove(chosen)
    assert chosen not in cgroups.names()


def test_a_group_holds_processes_until_they_end(name):
    folders = cgroups.create(name)
    assert all(folder.is_dir() for folder in folders) and name in cgroups.names()
    child = subprocess.Popen(["sleep", "60"])
    cgroups.add(folders, child.pid)
    assert cgroups.processes(name) == [child.pid]
    assert not cgroups.remove(name, timeout=0.05), "it is busy"
    child.kill()
    child.wait()
    assert cgroups.remove(name)
    assert not any(folder.exists() for folder in folders)
    assert cgroups.remove(name), "there is nothing to remove, so it is gone"


def test_groups_that_were_made_below_it_are_of_it(name):
    inner = [folder / "one" / "two" for folder in cgroups.create(name)]
    for folder in inner:
        cgroups.make_folder(folder)
        for file in ("cpuset.cpus", "cpuset.mems"):  # v1's takes no process before it has them
            if (folder / file).exists():
                for below in (folder.parents[1], folder.parent, folder):
                    (below / file).write_text((below.parent / file).read_text())
    with subprocess.Popen(["sleep", "60"]) as child:
        cgroups.add(inner, child.pid)
        assert cgroups.processes(name) == [child.pid]
        child.kill()
    assert cgroups.remove(name)
    assert name not in cgroups.names()


def test_limits_are_the_kernels(name):
    limits = Limits(memory=64 << 20, cpus=0.5, pids=7)
    if reason := cgroups.problem(limits):
        pytest.skip(reason)
    cgroups.create(name, limits)
    found = cgroups.find()
    if "memory" in found.v1:
        group = found.v1["memory"] / "bazaar" / name
        assert int((group / "memory.limit_in_bytes").read_text()) == 64 << 20
    else:
        assert int((found.v2 / "bazaar" / name / "memory.max").read_text()) == 64 << 20
    assert cgroups.memory_events(name) == 0


def test_a_refused_limit_leaves_nothing(name):
    if "memory" not in cgroups.find().controllers():
        pytest.skip("no memory controller")
    with pytest.raises(KernelError, match="cannot make the control group"):
        cgroups.create(name, Limits(memory=-5))
    assert name not in cgroups.names()
