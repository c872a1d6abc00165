"""`bazaar shield` as a user meets it, on interfaces of namespaces made for the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bazaar.shield import generator, guard
from bazaar.shield.generator import Flood
from tests.shield.network import DOOR, Wire, wire

BAZAAR = [sys.executable, "-m", "bazaar", "shield"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": "src"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BAZAAR, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )


@pytest.fixture
def made() -> Iterator[Wire]:
    with wire() as built:
        yield built
        found = guard.find(f"if-{built.door}-door0")
        if found:
            found.detach()


def facts(made: Wire) -> dict[str, object]:
    (mine,) = [
        item for item in json.loads(run("status", "-o", "json").stdout) if made.door in item["name"]
    ]
    return mine


def test_a_shield_is_put_up_changed_and_taken_away(made: Wire) -> None:
    name = f"{made.door}-door0"
    up = run(
        "on", "door0", "--netns", made.door, "-d", "--allow", "10.99.0.0/24", "--rate", "500/s"
    )
    assert up.returncode == 0, up.stderr
    assert "door0" in up.stderr
    assert run("block", "192.0.2.9", "--for", "10m", "--shield", name).returncode == 0
    assert run("allow", "198.51.100.0/24", "--shield", name).returncode == 0
    assert run("mode", "dry-run", "--shield", name).returncode == 0
    shown = facts(made)
    assert shown["mode"] == "dry-run"
    assert shown["rate"] == 500
    assert shown["allow"] == ["10.99.0.0/24", "198.51.100.0/24"]
    assert shown["interfaces"] == [{"name": "door0", "namespace": made.door, "mode": "native"}]
    (blocked,) = shown["blocked"]  # type: ignore[misc]
    assert blocked["source"] == "192.0.2.9"
    assert 590 < blocked["left"] <= 600
    page = run("status").stdout
    assert "192.0.2.9" in page
    assert "10.99.0.0/24" in page
    assert run("unblock", "192.0.2.9", "--shield", name).returncode == 0
    assert run("allow", "--remove", "198.51.100.0/24", "--shield", name).returncode == 0
    again = run("unblock", "192.0.2.9", "--shield", name)
    assert (again.returncode, "is not blocked" in again.stderr) == (1, True)
    assert facts(made)["blocked"] == []
    assert run("off", "door0", "--netns", made.door).returncode == 0
    gone = run("off", "door0", "--netns", made.door)
    assert gone.returncode == 1
    assert "no shield" in gone.stderr
    assert name not in run("status").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_names_whom_it_blocks_and_ends_cleanly(
    made: Wire, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*BAZAAR, "on", "door0", "--netns", made.door],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "door0" in first, first + process.stderr.read()
    flood = Flood(
        made.sender, "out0", DOOR, made.door_mac.hex(":"), sources=1, rate=50_000, packets=50_000
    )
    with generator.start(flood) as running:
        line = process.stderr.readline()
        running.stop()
    assert "blocked 198.18.0.0 for" in line
    process.send_signal(number)
    assert process.wait(10) == 0  # the documented way to end it
    assert "Traceback" not in process.stderr.read()
    assert guard.find(f"if-{made.door}-door0") is None


def test_mistakes_are_answered_by_a_sentence(made: Wire) -> None:
    for arguments, said in (
        (["on", "nowhere0", "--netns", made.door], "no interface 'nowhere0'"),
        (["on", "door0", "--netns", f"{made.door}x"], "no network namespace"),
        (["on", "door0", "--netns", made.door, "--rate", "fast"], "no rate"),
        (["on", "door0", "--netns", made.door, "--allow", "everybody"], "no IP address"),
        (["on", "door0", "--netns", made.door, "--port", "http"], "no port"),
        (["off", "door0", "--netns", made.door], "no shield"),
        (["block", "10.0.0.1", "--shield", f"{made.door}-nothing"], "no shield"),
    ):
        got = run(*arguments)
        assert got.returncode in {1, 2}, arguments
        assert said in got.stderr, got.stderr
        assert "Traceback" not in got.stderr
    assert guard.find(f"if-{made.door}-door0") is None


def test_help_loads_neither_the_compiler_nor_the_kernel_parts() -> None:
    code = (
        "import sys, bazaar.cli.shield\n"
        "print([name for name in sys.modules if name.startswith(('bazaar.bpf', 'bazaar.shield.'))])"
    )
    got = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert got.stdout.strip() == "[]"
    assert "on " in run("--help").stdout
