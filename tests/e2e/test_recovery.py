"""A machine that forbids a part, and one that was switched off."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, WEB, Instance, Polling, get, named_namespaces
from tests.spec.json_schema import accepts

pytestmark = pytest.mark.xdist_group("e2e")

SPEC = f"""
sites: {{u: {{}}}}
services:
  web:
    image: {WEB}
    command: [python3, -m, http.server, "8000"]
    port: 8000
    mode: http
  note:
    image: {WEB}
    command: [sleep, "1000000"]
    kernel: shared
probes: {{writes: "tracepoint:syscalls:sys_enter_write {{ @[container] = count(); }}"}}
shield: {{rate: 50000/s}}
"""
# A process of which the kernel refuses bpf(2), as container hosts do: classic BPF for
# seccomp(2) that returns EPERM for system call 321 of x86-64, and allows the rest.
WITHOUT_BPF = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 321), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
filters = b"".join(struct.pack("<HBBI", *one) for one in code)
buffer = ctypes.create_string_buffer(filters)
program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def bazaar(tmp_path):
    made = Instance(f"r{os.getpid()}", tmp_path)
    made.write(SPEC)
    yield made
    made.run("down", made.name, "--volumes", "--yes", check=False)


def _without_bpf(bazaar, *words):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_BPF, str(ROOT / "bazaar"), *words],
        env={**os.environ, "BAZAAR_STATE": str(bazaar.folder / "state")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_bpf_the_rest_goes_on(bazaar):
    done = _without_bpf(bazaar, "up", str(bazaar.file), "-o", "json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert all(service["healthy"] == service["wanted"] for service in status["services"])
    assert any(line.startswith("BPF") for line in status["missing"])
    assert "not permitted" in status["probes"][0]["problem"]
    assert status["shield"]["mode"] == "missing"
    shown = bazaar.run("status").stdout
    assert "shield missing" in shown
    assert shown.count("nothing (") == 2  # is what the probe sees of either service
    assert "everything" not in shown and "host edge" not in shown
    again = _without_bpf(bazaar, "up", str(bazaar.file)).stdout
    lacking = again.partition("\nMISSING\n")[2].splitlines()
    assert [line.split()[0] for line in lacking][-2:] == ["probe", "shield:"]
    assert any(line.startswith("BPF (") for line in lacking)
    # The next supervisor is allowed it, and attaches what was missing.
    child = status["supervisor"]["pid"]
    # The guardian first: a child of his would be forbidden the same.
    os.kill(_parent(child), signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    bazaar.run("up", str(bazaar.file))
    mended = bazaar.status()
    assert mended["probes"][0]["problem"] == ""
    assert mended["shield"]["mode"] == "on"


def test_without_bpf_it_goes_down_again(bazaar):
    assert _without_bpf(bazaar, "up", str(bazaar.file)).returncode == 0
    bazaar.write(SPEC.partition("probes:")[0])
    changed = _without_bpf(bazaar, "up", str(bazaar.file))
    assert changed.returncode == 0, changed.stderr
    down = _without_bpf(bazaar, "down", bazaar.name)
    assert down.returncode == 0, down.stderr
    assert _ours(bazaar) == []


@pytest.mark.parametrize("lost", ["cut short", "empty"])
def test_a_dead_supervisor_and_an_unreadable_applied_state(bazaar, lost):
    bazaar.write(SPEC.partition("probes:")[0])
    child = bazaar.up()["supervisor"]["pid"]
    os.kill(_parent(child), signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    applied = bazaar.folder / "state/bazaars" / bazaar.name / "applied.json"
    applied.write_text(applied.read_text()[:40] if lost == "cut short" else "")
    assert "+ supervisor" in bazaar.run("plan", str(bazaar.file)).stdout
    bazaar.run("up", str(bazaar.file))
    assert get(bazaar.service("web")["url"])
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_a_container_whose_shim_died_with_the_supervisor_is_replaced(bazaar):
    bazaar.write(SPEC.partition("probes:")[0])
    before = bazaar.up()
    pids = [replica["pid"] for one in before["services"] for replica in one["replicas"]]
    child = before["supervisor"]["pid"]
    for process in (_parent(child), child, *map(_parent, pids)):
        os.kill(process, signal.SIGKILL)
    bazaar.run("up", str(bazaar.file))
    assert get(bazaar.service("web")["url"])  # it writes a line of its log, which must be read
    after = bazaar.status()
    assert all(one["healthy"] == one["wanted"] for one in after["services"])
    assert not {replica["pid"] for one in after["services"] for replica in one["replicas"]} & {
        *pids
    }


def test_a_lost_guardian_is_a_change(bazaar):
    before = bazaar.up()
    os.kill(_parent(before["supervisor"]["pid"]), signal.SIGKILL)
    assert "~ supervisor" in bazaar.run("plan", str(bazaar.file)).stdout
    with Polling(bazaar.service("web")["url"]) as client:
        bazaar.run("up", str(bazaar.file))
    assert client.failures == []
    after = bazaar.wait(lambda status: status["supervisor"]["state"] == "ready")
    assert after["supervisor"]["pid"] != before["supervisor"]["pid"]
    for old, new in zip(before["services"], after["services"], strict=True):
        assert [row["pid"] for row in old["replicas"]] == [row["pid"] for row in new["replicas"]]
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _ours(bazaar):
    """Every process that belongs to the bazaar, found by what it was started with."""
    marks = (str(bazaar.folder / "state"), bazaar.name)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        if any(mark in words for mark in marks) or f"/bazaar/{bazaar.name}." in groups:
            found.append(int(entry.name))
    return found


def test_after_a_power_cut_the_supervisor_brings_it_back(bazaar):
    bazaar.up()
    before = bazaar.status()
    for _ in range(3):
        for pid in _ours(bazaar):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
    for name in named_namespaces():
        if name.startswith(f"bz-{bazaar.name}"):
            subprocess.run(["ip", "netns", "delete", name], check=True)
    # What systemd's unit starts at boot.
    supervisor = bazaar.start("supervise", bazaar.name)
    try:
        deadline = time.monotonic() + 60
        while True:
            done = bazaar.run("status", bazaar.name, "-o", "json", check=False)
            if done.returncode == 0:
                now = json.loads(done.stdout)
                if all(s["healthy"] == s["wanted"] for s in now["services"]):
                    break
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(0.2)
        web = next(service for service in now["services"] if service["name"] == "web")
        assert get(web["url"])
        assert web["replicas"][0]["pid"] != before["services"][0]["replicas"][0]["pid"]
        assert now["shield"]["mode"] == "on"
        bazaar.run("down", bazaar.name)
        assert supervisor.wait(timeout=20) == 0
    finally:
        supervisor.kill()
        supervisor.communicate()


@pytest.fixture
def busy():
    """A machine that has more to do than it can."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(3)
    ]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


def test_a_supervisor_that_adopts_says_so_and_takes_nothing_away(bazaar, busy):
    bazaar.up()
    state = bazaar.folder / "state" / "bazaars" / bazaar.name
    schema = json.loads((ROOT / "docs/reference/status.schema.json").read_text())
    before = bazaar.wait(lambda status: status["supervisor"]["state"] == "ready")
    killed = before["supervisor"]["pid"]
    balance = int((state / "balance/haproxy.pid").read_text())
    with Polling(bazaar.service("web")["url"]) as client:
        os.kill(balance, signal.SIGSTOP)  # its worker serves on; the adoption waits for it
        try:
            os.kill(killed, signal.SIGKILL)
            status = _first_status(bazaar, killed)
            shown = bazaar.run("status", bazaar.name).stdout
        finally:
            os.kill(balance, signal.SIGCONT)
        seen = [status]
        while seen[-1]["supervisor"]["state"] != "ready":
            seen.append(bazaar.status())
    assert status["supervisor"]["state"] == "adopting"
    assert "2/2 replicas   adopting" in shown.splitlines()[0]
    for one in seen:
        assert accepts(schema, one)
        assert all(service["healthy"] == service["wanted"] for service in one["services"]), one
    assert client.failures == []
    assert int((state / "balance/haproxy.pid").read_text()) == balance
    for old, new in zip(before["services"], seen[-1]["services"], strict=True):
        assert [row["pid"] for row in old["replicas"]] == [row["pid"] for row in new["replicas"]]
    assert seen[-1]["shield"]["mode"] == "on"


def _first_status(bazaar, killed):
    """The status of the next supervisor, as soon as there is one that answers."""
    deadline = time.monotonic() + 30
    while True:
        done = bazaar.run("status", bazaar.name, "-o", "json", check=False)
        status = json.loads(done.stdout) if done.returncode == 0 else None
        if status and status["supervisor"]["pid"] != killed:
            return status
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)


def test_what_died_with_the_supervisor_is_started_again(bazaar):
    before = bazaar.up()
    killed = before["supervisor"]["pid"]
    guardian = _parent(killed)
    os.kill(guardian, signal.SIGSTOP)  # so that nobody is there while the replica dies
    os.kill(killed, signal.SIGKILL)
    os.kill(before["services"][0]["replicas"][0]["pid"], signal.SIGKILL)
    time.sleep(0.5)
    os.kill(guardian, signal.SIGCONT)
    _first_status(bazaar, killed)
    after = bazaar.wait(lambda status: all(s["healthy"] == s["wanted"] for s in status["services"]))
    assert after["services"][0]["replicas"][0]["pid"] != before["services"][0]["replicas"][0]["pid"]
    assert after["services"][1]["replicas"][0]["pid"] == before["services"][1]["replicas"][0]["pid"]
    bazaar.wait(lambda status: status["supervisor"]["state"] == "ready")


def test_our_own_published_port_is_no_obstacle(bazaar):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bazaar.write(SPEC.replace("    mode: http\n", f"    mode: http\n    publish: {port}\n"))
    child = bazaar.up()["supervisor"]["pid"]
    guardian = _parent(child)
    os.kill(guardian, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    for file in ("applied.json", "balance/applied.json"):
        (bazaar.folder / "state" / "bazaars" / bazaar.name / file).unlink()
    bazaar.run("up", str(bazaar.file))
    assert get(f"http://127.0.0.1:{port}/")


def test_a_site_left_cut_off_is_a_change(bazaar):
    bazaar.up()
    # What a drill does, and leaves when it is killed.
    isolate = f"from bazaar.site import network; network.isolate({bazaar.name!r}, 'u')"
    state = {**os.environ, "BAZAAR_STATE": str(bazaar.folder / "state")}
    subprocess.run([str(ROOT / ".venv/bin/python"), "-c", isolate], check=True, env=state)
    assert bazaar.status()["sites"][0]["healthy"] is False
    assert "it is cut off" in bazaar.run("plan", str(bazaar.file)).stdout
    bazaar.run("up", str(bazaar.file))
    assert get(bazaar.service("web")["url"])
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


SLOW = """
sites: {u: {}}
services:
  web:
    image: __WEB__
    command: [sh, -c, "until test -e /tmp/go; do sleep 0.1; done; exec python3 -m http.server 8000"]
    port: 8000
    mode: http
    kernel: shared
    health: {start_period: 2s}
""".replace("__WEB__", WEB)


def test_a_late_replica_becomes_healthy_and_until_then_up_says_so(bazaar):
    bazaar.write(SLOW)
    first = bazaar.run("up", str(bazaar.file), check=False)
    assert first.returncode == 1
    assert "not healthy after 2 s" in first.stderr
    again = bazaar.run("up", str(bazaar.file), check=False)
    assert "No changes." in again.stdout
    assert again.returncode == 1
    assert "0 of 1 replicas are healthy" in again.stderr
    bazaar.run("exec", "web", "--", "touch", "/tmp/go")
    bazaar.wait(lambda status: status["services"][0]["healthy"] == 1)
    assert bazaar.run("up", str(bazaar.file)).returncode == 0


def test_a_paused_probe_goes_on_by_itself(bazaar):
    bazaar.up()
    ask = f"from bazaar.up import client; client.call({bazaar.name!r}, 'pause', {{'seconds': 8}})"
    state = {**os.environ, "BAZAAR_STATE": str(bazaar.folder / "state")}
    subprocess.run([str(ROOT / ".venv/bin/python"), "-c", ask], check=True, env=state)
    assert "paused" in bazaar.status()["probes"][0]["problem"]
    bazaar.wait(lambda status: not status["probes"][0]["problem"])
    before = bazaar.status()["probes"][0]["maps"]
    bazaar.run("exec", "note", "--", "sh", "-c", "for i in 1 2 3; do echo $i; done")
    assert bazaar.status()["probes"][0]["maps"] != before
