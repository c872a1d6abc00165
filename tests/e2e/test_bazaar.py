"""The whole, as a user has it: up, changes, deaths, down."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.e2e.conftest import ROOT, SERVER, WEB, Polling, get, named_namespaces
from tests.spec.json_schema import accepts

pytestmark = pytest.mark.xdist_group("e2e")

SPEC = """
sites: {u: {}, k: {}}
services:
  web:
    image: __WEB__
    command: [python3, /server.py]
    files: {/server.py: {file: __SERVER__}}
    port: 8000
    mode: http
    replicas: 2
    environment: {VERSION: "1"}
  note:
    image: __WEB__
    command:
      - python3
      - -c
      - |
        import os, time
        open("/data/note", "a").write("x")
        print(os.environ["SECRET"], flush=True)
        time.sleep(1e6)
    sites: [k]
    kernel: shared
    volumes: ["data:/data"]
    environment: {SECRET: {env: NOTE_SECRET}}
probes:
  writes: "tracepoint:syscalls:sys_enter_write { @[container] = count(); }"
shield: {rate: 50000/s}
"""


@pytest.fixture(scope="module")
def bazaar(instance):
    server = instance.folder / "server.py"
    server.write_text(SERVER)
    instance.environment["NOTE_SECRET"] = "hunter2"
    instance.write(spec(server))
    instance.first = instance.up()
    return instance


def spec(server, **changes):
    text = SPEC.replace("__WEB__", WEB).replace("__SERVER__", str(server))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def url(bazaar):
    return bazaar.service("web")["url"]


def test_every_replica_answers_in_turn(bazaar):
    answers = {get(url(bazaar)) for _ in range(12)}
    assert answers == {f"web-{site}-{number} 1" for site in "uk" for number in (1, 2)}


def test_status_says_what_runs(bazaar):
    status = bazaar.status()
    schema = json.loads((ROOT / "docs/reference/status.schema.json").read_text())
    assert accepts(schema, status)
    assert not accepts(schema, {**status, "services": [{}]})
    web = next(service for service in status["services"] if service["name"] == "web")
    assert (web["healthy"], web["wanted"], web["engine"]) == (4, 4, "gvisor")
    assert {row["id"] for row in web["replicas"]} == {"web/u/1", "web/u/2", "web/k/1", "web/k/2"}
    assert all(row["start_ms"] > 0 and row["pid"] for row in web["replicas"])
    assert status["probes"][0]["lost"] == 0
    assert status["shield"]["mode"] == "on"


def test_second_up_changes_nothing_quickly(bazaar):
    began = time.monotonic()
    done = bazaar.run("up", str(bazaar.file))
    assert "No changes." in done.stdout
    assert time.monotonic() - began < 10  # two seconds on an idle machine: bench/ measures it
    plan = bazaar.run("plan", str(bazaar.file), "-o", "json")
    assert '"changes": []' in plan.stdout


def test_secrets_reach_the_service_and_nothing_else(bazaar):
    assert "hunter2" in bazaar.run("logs", "note").stdout
    state = bazaar.folder / "state"
    holding = [
        path
        for path in state.rglob("*")
        if path.is_file() and not path.is_symlink() and b"hunter2" in path.read_bytes()
    ]
    assert holding
    for path in holding:
        folders = [path, *path.parents[: len(path.relative_to(state).parts)]]
        assert any(not folder.stat().st_mode & 0o077 for folder in folders), path
    for process in (p for p in os.listdir("/proc") if p.isdigit()):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as words:
                assert b"hunter2" not in words.read()
        except OSError:
            continue


def test_exec_and_logs(bazaar):
    done = bazaar.run(
        "exec", "web/u/2", "--", "python3", "-c", "import socket; print(socket.gethostname())"
    )
    assert done.stdout == "web-u-2\n"
    assert bazaar.run("exec", "note", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    wrong = bazaar.run("exec", "nothing", "--", "true", check=False)
    assert wrong.returncode == 2
    assert "there is no replica or container 'nothing'" in wrong.stderr


def test_names_resolve_between_services(bazaar):
    ask = "import urllib.request as u; print(u.urlopen('http://web:8000/').read().decode())"
    assert "web-" in bazaar.run("exec", "note", "--", "python3", "-c", ask).stdout


def test_a_probe_sees_the_container_by_name(bazaar):
    writing = "import os; f=os.open('/dev/null',1); [os.write(f,b'x') for _ in range(5000)]"
    bazaar.run("exec", "note", "--", "python3", "-c", writing)
    maps = bazaar.status()["probes"][0]["maps"][0]["data"]["@"]
    assert maps["note/k/1"] >= 5000
    # Of kernels of their own the host sees no system call: none may show as the application's.
    assert not any(key in ("web/u/1", "web/u/2", "web/k/1", "web/k/2") for key in maps)


def test_a_killed_replica_comes_back(bazaar):
    row = bazaar.service("web")["replicas"][0]
    with Polling(url(bazaar)) as client:
        time.sleep(0.3)
        os.kill(row["pid"], signal.SIGKILL)

        def back(status):
            now = next(r for s in status["services"] for r in s["replicas"] if r["id"] == row["id"])
            return now["healthy"] and now["pid"] != row["pid"] and now["restarts"] == 1

        bazaar.wait(back)
    assert len(client.failures) <= 1, client.failures
    assert len(client.answers) > 10


def test_a_killed_supervisor_is_replaced_and_adopts(bazaar):
    before = bazaar.status()
    os.kill(before["supervisor"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        done = bazaar.run("status", bazaar.name, "-o", "json", check=False)
        if done.returncode == 0 and bazaar.service("web")["healthy"] == 4:
            break
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)
    after = bazaar.status()
    assert after["supervisor"]["pid"] != before["supervisor"]["pid"]
    for old, new in zip(before["services"], after["services"], strict=True):
        assert [row["pid"] for row in old["replicas"]] == [row["pid"] for row in new["replicas"]]
        assert [r["start_ms"] for r in old["replicas"]] == [r["start_ms"] for r in new["replicas"]]
    # Probes are found again a little later than replicas.
    after = bazaar.wait(lambda status: all(probe["maps"] for probe in status["probes"]))
    count = before["probes"][0]["maps"][0]["data"]["@"]["note/k/1"]
    assert after["probes"][0]["maps"][0]["data"]["@"]["note/k/1"] >= count


def test_a_change_is_rolled_out_without_a_failed_request(bazaar):
    bazaar.write(spec(bazaar.folder / "server.py", **{'VERSION: "1"': 'VERSION: "2"'}))
    with Polling(url(bazaar)) as client:
        bazaar.run("up", str(bazaar.file))
        time.sleep(0.3)
    assert client.failures == []
    assert {get(url(bazaar)).split()[1] for _ in range(8)} == {"2"}
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_a_bad_change_leaves_the_old_replicas(bazaar):
    good = bazaar.file.read_text()
    bad = good.replace("[python3, /server.py]", "[python3, /no-such-file.py]")
    bazaar.file.write_text(bad)
    with Polling(url(bazaar)) as client:
        done = bazaar.run("up", str(bazaar.file), check=False)
    assert done.returncode == 1
    assert "no-such-file" in done.stderr
    assert client.failures == []
    bazaar.file.write_text(good)
    bazaar.run("up", str(bazaar.file))


def test_a_wrong_description_changes_nothing(bazaar):
    wrong = bazaar.folder / "wrong.yaml"
    wrong.write_text(bazaar.file.read_text().replace("replicas: 2", "replicas: two"))
    done = bazaar.run("up", str(wrong), check=False)
    assert done.returncode == 2
    assert "services.web.replicas: 'two' is not a whole number" in done.stderr
    assert "nothing was changed" in done.stderr
    assert bazaar.service("web")["healthy"] == 4


def test_two_ups_at_once(bazaar):
    bazaar.write(spec(bazaar.folder / "server.py", **{'VERSION: "1"': 'VERSION: "3"'}))
    both = [bazaar.start("up", str(bazaar.file)) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], ends
    loser = next(end for process, end in zip(both, ends, strict=True) if process.returncode)
    assert "is being changed by process" in loser[1]
    assert bazaar.service("web")["healthy"] == 4


def test_a_killed_up_converges(bazaar):
    bazaar.write(spec(bazaar.folder / "server.py", **{'VERSION: "1"': 'VERSION: "4"'}))
    for pause in (0.3, 0.7, 1.2):
        process = bazaar.start("up", str(bazaar.file))
        time.sleep(pause)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 60
    while (done := bazaar.run("up", str(bazaar.file), check=False)).returncode:
        # The supervisor goes on with what it was told; it says so until it is done.
        assert "being changed" in done.stderr, done.stderr
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {get(url(bazaar)).split()[1] for _ in range(8)} == {"4"}


def test_a_state_file_cut_short(bazaar):
    folder = bazaar.folder / "state" / "bazaars" / bazaar.name
    pid = bazaar.status()["supervisor"]["pid"]
    for file in ("wanted.json", "applied.json"):
        text = (folder / file).read_text()
        (folder / file).write_text(text[: len(text) // 2])
    os.kill(pid, signal.SIGKILL)
    bazaar.run("up", str(bazaar.file))
    assert bazaar.service("web")["healthy"] == 4


def test_down_leaves_nothing_but_the_volume(bazaar):
    folder = bazaar.folder / "state" / "bazaars" / bazaar.name
    bazaar.run("down", bazaar.name)
    assert [path.name for path in folder.iterdir()] == ["volumes"]
    assert set((folder / "volumes" / "data" / "note").read_text()) == {"x"}
    assert not [name for name in named_namespaces() if bazaar.name in name]
    again = bazaar.run("down", bazaar.name)
    assert "Volumes kept: data" in again.stderr
    assert "no bazaar 'nobody'" in bazaar.run("down", "nobody", check=False).stderr


def test_up_again_finds_the_volume_and_down_takes_it(bazaar):
    before = (bazaar.folder / "state/bazaars" / bazaar.name / "volumes/data/note").read_text()
    bazaar.run("up", str(bazaar.file))
    # Without a port a replica counts as healthy once it runs: it may not have written yet.
    deadline = time.monotonic() + 20
    while len(read := bazaar.run("exec", "note", "--", "cat", "/data/note").stdout) <= len(before):
        assert time.monotonic() < deadline, (before, read, bazaar.status())
        time.sleep(0.2)
    assert read.startswith(before)
    refused = bazaar.run("down", bazaar.name, "--volumes", check=False)
    assert refused.returncode == 2
    assert "data" in refused.stderr
    bazaar.run("down", bazaar.name, "--volumes", "--yes")
    assert not (bazaar.folder / "state" / "bazaars" / bazaar.name).exists()
