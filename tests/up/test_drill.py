"""Which drills run, and what becomes of those that cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bazaar.errors import BazaarError, MissingError, UsageError
from bazaar.host import mounts, processes
from bazaar.shield import guard, measure, pinned
from bazaar.shield.settings import ShieldSpec
from bazaar.up import client, drill
from bazaar.up.drill import bpftrace, flood, trace
from tests.run.layouts import archive, static_shell

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_an_unknown_drill_is_named():
    with pytest.raises(UsageError, match="there is no drill 'fire'"):
        drill.run("nothing", ["boot", "fire"], lambda text: None)


def test_a_drill_that_cannot_be_measured_leaves_the_others(state):
    figures = drill.run("nothing", ["site", "crash"], lambda text: None)
    assert [(figure.name, figure.value, figure.holds) for figure in figures] == [
        ("site", None, False),
        ("crash", None, False),
    ]
    assert all("nothing: its supervisor does not answer" in figure.note for figure in figures)


def test_one_drill_alone_fails_with_its_error(state):
    with pytest.raises(BazaarError, match="its supervisor does not answer"):
        drill.run("nothing", ["site"], lambda text: None)


@pytest.fixture
def debian(tmp_path, monkeypatch) -> Path:
    """A root like that of `bench/setup`, whose bpftrace is a script."""
    if os.geteuid() != 0:
        pytest.skip("chroot takes root")
    from bazaar.run.images import unpack

    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    root = bpftrace.root()
    root.mkdir(parents=True)
    (tmp_path / "layer").write_bytes(archive(*static_shell()))
    unpack.layer(tmp_path / "layer", root, what="the test's root")
    program(root, "echo bpftrace v9.9")
    return root


def program(root: Path, text: str) -> None:
    path = root / "usr/bin/bpftrace"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_bpftrace_of_bench_setup_is_compared_with(debian):
    with bpftrace.rival(installed=True) as rival:
        assert rival is not None and rival.name == "bpftrace 9.9"
        program(debian, 'cat "$1"; ls /sys')
        done = subprocess.run(
            rival.command("/proc/self/comm"), capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[0] == "cat" and "kernel" in done.stdout.splitlines()
        assert not [one for one in mounts.mounted() if one.target.startswith(f"{debian}/")]


def test_when_a_drill_is_killed_its_bpftrace_leaves_no_mounts(debian):
    code = (
        "import time\nfrom bazaar.up.drill import bpftrace\n"
        "with bpftrace.rival(installed=False) as rival:\n"
        "    print(rival.program[3], flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as drill:
        holder = int(drill.stdout.readline())
        assert processes.identify(holder) is not None
        drill.kill()
    deadline = time.monotonic() + 5
    while processes.identify(holder) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_it_the_installed_one_may_serve(tmp_path, monkeypatch):
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "usr/bin").mkdir(parents=True)
    program(tmp_path, "echo bpftrace v0.17.0")
    (tmp_path / "bpftrace").symlink_to(tmp_path / "usr/bin/bpftrace")
    with bpftrace.rival(installed=True) as rival:
        assert rival is not None and rival.name == "bpftrace 0.17.0"
    with bpftrace.rival(installed=False) as rival:
        assert rival is None
    program(tmp_path, "echo no BTF >&2; exit 1")
    with (
        pytest.raises(MissingError, match="does not run: no BTF"),
        bpftrace.rival(installed=True),
    ):
        pass


def test_without_a_rival_there_is_no_goal():
    code = (
        "import trace\n"
        "for other in ([], [0.0]):\n"
        "    one = trace.figure('trace.start', 's', '', [1.0], other, 0.5)\n"
        "    assert one.goal is None and one.holds is None and one.note, one\n"
        "assert trace.figure('trace.start', 's', 'x', [1.0], [1.0], 0.5).holds is False\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=BENCH, check=True)
    figures = trace._figures([1.0], [(1.1, 100.0)], [], None)
    cost = next(one for one in figures if one.name == "trace.cost")
    assert cost.goal is None and cost.holds is None and "bench/setup" in cost.note


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.skipif(os.geteuid() != 0, reason="a shield needs root")
def test_a_flood_leaves_the_shield_as_it_is(monkeypatch, killed):
    name = f"d{os.getpid()}"
    seen = []

    def look(arena, shield, front, url, address, **options):
        seen.append((guard.find(name).mode, shield.mode, shield.spec.rate, shield.spec.ports))
        if killed:
            monkeypatch.setattr(shield, "detach", shield.close)
        return {measure.CONTROL: [], measure.SHIELD: []}

    service = {"url": "http://10.1.0.10/", "address": "10.1.0.10", "port": 80}
    monkeypatch.setattr(client, "call", lambda *words: {"services": [service]})
    monkeypatch.setattr(measure, "flood", look)
    monkeypatch.setattr(measure, "figures", lambda samples, note: [])
    shield = guard.attach(name, ShieldSpec(rate=777, mode="dry-run", ports=()))
    try:
        flood.measure(name, print)
        assert seen == [("dry-run", "on", 777, (("tcp", 80),))]
        assert shield.mode == "dry-run"
        assert (f"drill-{name}" in pinned.names()) == killed
        flood.remove(name)
        assert f"drill-{name}" not in pinned.names()
    finally:
        shield.detach()
