"""Killed at any point, with any file cut short: `up` makes it whole again, `down` takes it away."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bazaar.host import processes
from bazaar.up import guardian
from tests.e2e.conftest import WEB, Instance, get, named_namespaces

pytestmark = pytest.mark.xdist_group("e2e")

SPEC = f"""
sites: {{u: {{}}}}
services:
  web:
    image: {WEB}
    command: [sh, -c, "trap exit TERM; python3 -m http.server 8000 & wait"]
    port: 8000
    mode: http
    kernel: shared
    volumes: ["data:/data"]
"""
ROUNDS = 5


@pytest.fixture
def bazaar(tmp_path, monkeypatch):
    made = Instance(f"c{os.getpid()}", tmp_path)
    made.write(SPEC)
    monkeypatch.setenv("BAZAAR_STATE", str(tmp_path / "state"))
    yield made
    made.run("down", made.name, "--volumes", "--yes", check=False)


def kill_supervisor(bazaar):
    for one in guardian.find(bazaar.name):
        processes.send(one, signal.SIGKILL)
    for one in guardian.find(bazaar.name):
        processes.wait(one, 5)


def whole(bazaar):
    bazaar.run("up", str(bazaar.file))
    assert get(bazaar.service("web")["url"])
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_any_file_of_the_state_cut_short(bazaar):
    bazaar.up()
    folder = bazaar.folder / "state"
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.json"))
    assert {"wanted.json", "applied.json", "layout.json", "secrets.json"} <= {f.name for f in files}
    for file in files:
        kill_supervisor(bazaar)
        if (folder / file).exists():  # else of a container that was replaced meanwhile
            os.truncate(folder / file, 20)
            print(f"{file} is cut short")
            whole(bazaar)


@pytest.mark.parametrize("command", ["up", "down"])
def test_killed_at_any_point(bazaar, command):
    chosen = random.Random(seed := random.randrange(1 << 32))
    print("seed", seed)
    for _ in range(ROUNDS):
        if command == "down":
            whole(bazaar)
        process = bazaar.start(command, bazaar.name if command == "down" else str(bazaar.file))
        time.sleep(pause := chosen.uniform(0, 2))
        process.kill()
        process.communicate()
        if chosen.random() < 0.5:
            kill_supervisor(bazaar)
        print(f"killed after {pause:.3f} s")
        if command == "up":
            whole(bazaar)
        # Where nothing was begun there is nothing by that name.
        done = bazaar.run("down", bazaar.name, check=False)
        assert done.returncode == 0 or "there is no bazaar" in done.stderr, done.stderr
        assert left(bazaar) == []


def left(bazaar: Instance) -> list[str]:
    """What is there of it, but its volumes."""
    pids = [one.pid for one in guardian.find(bazaar.name)]
    search = ["pgrep", "-f", f"{bazaar.name}[.]web"]
    shims = subprocess.run(search, capture_output=True, text=True, check=False)
    folder = bazaar.folder / "state/containers"
    return [
        *(name for name in named_namespaces() if name.startswith(f"bz-{bazaar.name}")),
        *map(str, pids),
        *shims.stdout.split(),
        *(path.name for path in (folder.iterdir() if folder.is_dir() else ())),
        *map(str, Path("/sys/fs/bpf/bazaar").glob(bazaar.name)),
    ]
