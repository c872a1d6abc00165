"""A change that fails is taken back: what ran before runs again, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import SERVER, WEB, Instance, Polling, get

pytestmark = pytest.mark.xdist_group("e2e")

SPEC = """
sites: {u: {}}
services:
  store:
    image: __WEB__
    command: [sh, -c, "echo $VERSION >>/data/starts; exec python3 /server.py"]
    files: {/server.py: {file: __SERVER__}}
    port: 8000
    mode: http
    kernel: shared
    health: {start_period: __PATIENCE__}
    volumes: ["data:/data"]
    environment: {VERSION: "1", SECRET: {env: STORE_SECRET}}
  web:
    image: __WEB__
    command: [python3, /server.py]
    files: {/server.py: {file: __SERVER__}}
    port: 8000
    mode: http
    kernel: shared
    replicas: 2
    health: {start_period: __PATIENCE__}
    environment: {VERSION: "1"}
  worker:
    image: __WEB__
    command: [sh, -c, "trap exit TERM; sleep 1000000 & wait"]
    kernel: shared
    volumes: ["work:/work"]
"""
STORE = '[sh, -c, "echo $VERSION >>/data/starts; exec python3 /server.py"]'
WORKER = """[sh, -c, "trap exit TERM; sleep 1000000 & wait"]"""
SILENT = """[sh, -c, "trap exit TERM; sleep 1000001 & wait"]"""
# The first process of a container ignores SIGTERM unless it asks for it.
OBEDIENT = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n" + SERVER


@pytest.fixture(scope="module")
def bazaar(instance):
    (instance.folder / "server.py").write_text(OBEDIENT)
    instance.environment["STORE_SECRET"] = "first"
    write(instance)
    instance.up()
    return instance


def write(bazaar: Instance, patience: str = "3s", **changes: str) -> None:
    text = SPEC.replace("__WEB__", WEB).replace("__SERVER__", str(bazaar.folder / "server.py"))
    text = text.replace("__PATIENCE__", patience)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    bazaar.write(text)


def fails(bazaar: Instance, service: str, why: str) -> None:
    """`up` fails, says so, leaves what ran before, and the plan still holds the change."""
    done = bazaar.run("up", str(bazaar.file), check=False)
    assert done.returncode == 1, done.stderr
    assert why in done.stderr
    assert f"{service}: the change is taken back, and what ran before runs again" in done.stderr
    assert "mend the description" in done.stderr
    assert "tried again and again" not in done.stderr
    status = bazaar.status()
    assert all(one["healthy"] == one["wanted"] for one in status["services"])
    plan = bazaar.run("plan", str(bazaar.file)).stdout
    assert f"~ service  {service}" in plan
    assert "0 to create, 1 to change, 0 to destroy" in plan


def url(bazaar: Instance, service: str) -> str:
    return bazaar.service(service)["url"]


def containers(bazaar: Instance) -> list[str]:
    return sorted(path.name for path in (bazaar.folder / "state/containers").iterdir())


def test_of_a_service_with_a_volume(bazaar):
    before = containers(bazaar)
    write(bazaar, **{STORE: "[python3, /no-such-file.py]"})
    fails(bazaar, "store", "/no-such-file.py")
    assert "(command)" in bazaar.run("plan", str(bazaar.file)).stdout
    assert get(url(bazaar, "store")) == "store-u-1 1"
    assert containers(bazaar) == before
    write(bazaar)
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_of_what_cannot_even_be_made(bazaar):
    before, pids = containers(bazaar), _pids(bazaar)
    files = bazaar.folder / "state/bazaars" / bazaar.name / "files/worker"
    files.write_text("where a folder has to be")
    try:
        write(bazaar, **{WORKER: f"{WORKER}\n    files: {{/more: more}}"})
        fails(bazaar, "worker", "files/worker")
        assert _pids(bazaar) == pids  # nothing was stopped for it
    finally:
        files.unlink()
    assert containers(bazaar) == before
    write(bazaar)
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_what_ran_before_has_its_own_files_and_secrets(bazaar):
    (bazaar.folder / "server.py").write_text("raise SystemExit('broken file')")
    bazaar.environment["STORE_SECRET"] = "second"
    try:
        write(bazaar)
        done = bazaar.run("up", str(bazaar.file), check=False)
        assert done.returncode == 1
        assert "broken file" in done.stderr
        assert get(url(bazaar, "store")) == "store-u-1 1"
        assert {get(url(bazaar, "web")) for _ in range(4)} == {"web-u-1 1", "web-u-2 1"}
        shown = bazaar.run("exec", "store", "--", "sh", "-c", "echo $SECRET").stdout
        assert shown == "first\n"
    finally:
        (bazaar.folder / "server.py").write_text(OBEDIENT)
        bazaar.environment["STORE_SECRET"] = "first"
    write(bazaar)
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_of_the_port(bazaar):
    write(bazaar, **{"port: 8000": "port: 8001"})
    fails(bazaar, "store", "not healthy after 3 s")
    assert url(bazaar, "store").endswith(":8000/")
    assert get(url(bazaar, "store")) == "store-u-1 1"


def test_without_a_health_check_what_ends_at_once_has_failed(bazaar):
    write(bazaar, **{WORKER: '[sh, -c, "echo no work; exit 3"]'})
    fails(bazaar, "worker", "exit code 3\n  no work")


def test_without_a_volume_the_old_replicas_go_on(bazaar):
    before = [row["pid"] for row in bazaar.service("web")["replicas"]]
    write(bazaar, **{"command: [python3, /server.py]": f"command: {SILENT}"})
    with Polling(url(bazaar, "web")) as client:
        fails(bazaar, "web", "not healthy after 3 s")
    assert client.failures == []
    assert [row["pid"] for row in bazaar.service("web")["replicas"]] == before


def test_the_replicas_changed_before_the_one_that_fails_change_back(bazaar):
    command = '[sh, -c, "VERSION=2; [ $(hostname) = web-u-1 ] && exec python3 /server.py"]'
    write(bazaar, **{"command: [python3, /server.py]": f"command: {command}"})
    with Polling(url(bazaar, "web")) as client:
        fails(bazaar, "web", "web/u/2: it ended with exit code 1")
    assert client.failures == []
    assert "web-u-1 2" in client.answers
    assert {get(url(bazaar, "web")) for _ in range(4)} == {"web-u-1 1", "web-u-2 1"}


@pytest.mark.parametrize("service", ["store", "web"])
def test_the_supervisor_killed_in_the_middle(bazaar, service):
    write(bazaar)
    bazaar.run("up", str(bazaar.file))
    before = containers(bazaar)
    good = STORE if service == "store" else "command: [python3, /server.py]"
    bad = SILENT if service == "store" else f"command: {SILENT}"
    write(bazaar, patience="3s", **{good: bad})
    up = bazaar.start("up", str(bazaar.file))
    try:
        bazaar.wait(lambda status: _runs(status, service, "1000001"))
        os.kill(bazaar.status()["supervisor"]["pid"], signal.SIGKILL)
        _, told = up.communicate(timeout=60)
        assert up.returncode == 1
        assert "Traceback" not in told
    finally:
        up.kill()
        up.communicate()
    _settled(bazaar)
    assert get(url(bazaar, service)).endswith(" 1")
    assert len(containers(bazaar)) == len(before)
    assert f"~ service  {service}" in bazaar.run("plan", str(bazaar.file)).stdout
    # No later supervisor tries it again.
    pids = _pids(bazaar)
    os.kill(bazaar.status()["supervisor"]["pid"], signal.SIGKILL)
    _settled(bazaar)
    assert _pids(bazaar) == pids


def _settled(bazaar: Instance) -> None:
    """Wait until a supervisor is done, with all that is wanted healthy."""
    deadline = time.monotonic() + 40
    while True:
        done = bazaar.run("status", bazaar.name, "-o", "json", check=False)
        if done.returncode == 0:
            status = bazaar.status()
            whole = all(one["healthy"] == one["wanted"] for one in status["services"])
            if whole and status["supervisor"]["state"] == "ready":
                return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.1)


def _pids(bazaar: Instance) -> list[int]:
    return [row["pid"] for one in bazaar.status()["services"] for row in one["replicas"]]


def _runs(status, service: str, word: str) -> bool:
    """Whether a replica of the service was started with this word."""
    one = next(one for one in status["services"] if one["name"] == service)
    for row in one["replicas"]:
        try:
            words = Path(f"/proc/{row['pid']}/cmdline").read_bytes().decode()
        except OSError:
            continue
        if word in words:
            return True
    return False
