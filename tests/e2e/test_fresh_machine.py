"""A fresh clone on a fresh Debian 12: everything a first user sees, downloads and builds included.

What is committed is tested (HEAD), not what lies in the work tree. Each command's lines and times
are printed: ``./test --all -s tests/e2e/test_fresh_machine.py`` shows them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.host import apt_sources
from tests import leaks
from tests.e2e.conftest import ROOT
from tests.e2e.machine import SUITE, USER, Done, Machine, booted
from tests.spec.json_schema import accepts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine is booted by root"),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
        for program in ("systemd-nspawn", "mmdebstrap", "git")
    ),
    pytest.mark.skipif(not apt_sources.for_suite(SUITE), reason=f"no apt source of {SUITE}"),
]

CLONE = "/opt/bazaar"
SPEC = "/root/fosdem.yaml"
# Seconds. The first is the promise; the second up has two of its own, more where others work too.
FIRST_UP, SECOND_UP = 360.0, 10.0
SILENCE = 20.0  # longer than this, a log looks as if nothing went on
FIGURES = {
    *("boot.p50", "boot.p99"),
    *("trace.bare", "trace.cost", "trace.event"),
    *("flood.rate", "flood.control", "flood.with_shield", "flood.without_shield"),
    *("flood.nftables_ingress", "flood.nftables_prerouting"),
    *("site.failover", "site.lost", "site.return"),
    *("crash.recovery", "crash.restarted", "crash.lost"),
}
# What a bazaar makes outside its state and cache folders, and how it is seen there.
REMAINS = {
    "network namespace": "ls /run/netns",
    "mount": "cut -d' ' -f5 /proc/self/mountinfo | grep -E '^/(var/(lib|cache)/bazaar|run/netns/)'",
    "pinned object": "find /sys/fs/bpf/bazaar -mindepth 1",
    "control group": "find /sys/fs/cgroup -type d -name '{name}.*'; "
    "find /sys/fs/cgroup/unified/bazaar /sys/fs/cgroup/bazaar -mindepth 0",
    "nftables table": "nft list tables | grep {name}",
    "process": "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$file; echo; done | "
    "grep -E '^[^ ]*(runsc|runc|haproxy|dnsmasq|wrk)|bazaar [s]upervise|bazaar[.][r]un'",
    "file": "ls -d /tmp/*bazaar* /tmp/bz* /run/*bazaar* /run/bz*",
    "state": "find /var/lib/bazaar/bazaars /var/lib/bazaar/containers -mindepth 1 -maxdepth 2 "
    "-not -name '*.lock' -not -path '*/{name}/volumes' -not -path '*/bazaars/{name}'",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """HEAD as root's own: git clones nothing that belongs to another user."""
    folder = tmp_path_factory.mktemp("repository") / "bazaar.git"
    subprocess.run(
        ["git", "-c", "safe.directory=*", "clone", "--quiet", "--bare", str(ROOT), str(folder)],
        check=True,
    )
    return folder


@pytest.fixture(scope="module")
def bare(repository) -> Iterator[Machine]:
    """A machine on which nothing gets as far as a bazaar."""
    with booted(repository, f"bare{os.getpid()}") as machine:
        clone(machine)
        yield machine


@pytest.fixture(scope="module")
def machine(repository) -> Iterator[Machine]:
    """The machine of the whole story, with the bazaar up."""
    before = leaks.snapshot()
    name = f"fresh{os.getpid()}"
    with booted(repository, name) as machine:
        clone(machine)
        # Its network is this machine's too, where a bazaar of the example's name may be up.
        rename = f"s/^bazaar: fosdem$/bazaar: {name}/"
        machine.look(f"sed '{rename}' {CLONE}/examples/fosdem.yaml >{SPEC}")
        machine.first = bazaar(machine, "up", SPEC)
        yield machine
        # Whatever failed above, nothing may stay in the network that the two share.
        bazaar(machine, "down", "--volumes", "--yes")
    assert [line for line in leaks.left(before) if name in line] == []


def clone(machine: Machine) -> None:
    done = machine.run("git", "clone", "--quiet", "/srv/bazaar", CLONE)
    assert done.code == 0, done


def bazaar(machine: Machine, *words: str, user: str = "root", around: tuple[str, ...] = ()) -> Done:
    """Run ./bazaar there; what it said is shown where a test fails."""
    done = machine.run(*around, "./bazaar", *words, folder=CLONE, user=user, timeout=900)
    shown = str(done)
    if "json" in words:
        shown = re.sub(r"^ *[\d.]+ out .*\n?", "", shown, flags=re.MULTILINE)
    print(f"\n{shown}")
    return done


def packages(machine: Machine) -> list[str]:
    return machine.look("dpkg-query -W")


# Before anything is set up ------------------------------------------------------------------


def test_who_may_not_set_it_up_is_told(bare):
    done = bazaar(bare, "up", "examples/fosdem.yaml", user=USER)
    assert done.code == 1
    assert f"{CLONE} is not set up yet, and you may not write there" in done.stderr
    assert "sudo ./bazaar" in done.stderr


def test_a_user_is_told_what_is_missing(bare):
    own = f"/home/{USER}/bazaar"
    bare.look(f"cp -r {CLONE} {own} && chown -R {USER} {own}")
    done = bare.run("./bazaar", "up", "examples/fosdem.yaml", folder=own, user=USER)
    assert done.code == 1, done
    assert "apt-get install python3-venv" in done.stderr


def test_without_a_network_nothing_is_set_up(bare):
    before = packages(bare)
    done = bazaar(bare, "up", "examples/fosdem.yaml", around=("unshare", "--net"))
    assert done.code == 1
    assert "python3-venv could not be installed; does 'apt-get update' work here?" in done.stderr
    assert packages(bare) == before
    assert bare.look(f"ls -d {CLONE}/.venv") == []


def test_the_first_call_sets_it_up_and_the_second_is_quick(bare):
    first = bazaar(bare, "--version")
    assert (first.code, first.stdout) == (0, "bazaar 0.1.0\n")
    assert "setting up .venv" in first.stderr
    second = bazaar(bare, "--version")
    assert (second.code, second.stdout, second.stderr) == (0, "bazaar 0.1.0\n", "")
    assert second.seconds < 1
    assert bare.look(f"cd {CLONE} && git status --short") == []


def test_the_doctor_looks_and_changes_nothing(bare):
    before = packages(bare)
    done = bazaar(bare, "doctor")
    assert done.code == 1
    assert "`bazaar doctor --fix` installs what can be installed." in done.stdout
    told = json.loads(bazaar(bare, "doctor", "-o", "json").stdout)
    assert not told["ready"]
    lacking = {need["name"]: need for need in told["needs"] if not need["present"]}
    for name in ("ip", "haproxy", "dnsmasq", "mmdebstrap", "runc", "gvisor"):
        assert lacking[name]["essential"] and lacking[name]["remedy"]
    # Of the kernel nothing may seem missing for want of a program to try it with.
    ours = json.loads(subprocess.check_output([ROOT / "bazaar", "doctor", "-o", "json"]))
    kernel = {need["name"] for need in ours["needs"] if need["kind"] == "kernel"}
    here = {need["name"] for need in ours["needs"] if not need["present"]}
    assert {name for name in lacking if name in kernel} - here <= {"cgroup controllers"}
    assert packages(bare) == before
    assert bare.look("ls /var/lib/bazaar /var/cache/bazaar /run/netns") == []


def test_a_user_needs_root_for_a_local_site(bare):
    done = bazaar(bare, "up", "examples/fosdem.yaml", user=USER)
    assert done.code == 1
    assert "needs root" in done.stderr and "sudo" in done.stderr


def test_without_a_network_up_says_what_is_missing_and_changes_nothing(bare):
    before = packages(bare)
    done = bazaar(bare, "up", "examples/fosdem.yaml", around=("unshare", "--net"))
    assert done.code == 1
    assert "this machine lacks" in done.stderr
    assert "Temporary failure resolving" in done.stderr
    assert re.search(r"apt-get install .*haproxy", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.seconds < 60
    assert packages(bare) == before
    remains_nothing(bare, "fosdem")


# The whole story ----------------------------------------------------------------------------


def test_the_first_up_is_healthy_in_time(machine):
    done = machine.first
    assert done.code == 0
    assert done.seconds < FIRST_UP
    assert done.silence < SILENCE
    assert "10 to create, 0 to change, 0 to destroy" in done.stderr
    for stage in ("setting up .venv", "apt: ", "gVisor: ", "Images   ", "Site  ", "Start  "):
        assert stage in done.stderr, stage
    assert "\r" not in done.stderr and "\033" not in done.stderr
    # A machine in a container has v1 controllers it may not write to: it is told, and goes on.
    assert "cgroup controllers" in done.stderr or "missing" not in done.stderr


def test_everything_is_healthy(machine):
    done = bazaar(machine, "status", "-o", "json")
    assert done.code == 0
    status = json.loads(done.stdout)
    assert accepts(json.loads((ROOT / "docs/reference/status.schema.json").read_text()), status)
    assert all(site["healthy"] for site in status["sites"])
    services = {service["name"]: service for service in status["services"]}
    assert {name: service["healthy"] for name, service in services.items()} == {
        "apache": 4,
        "python": 2,
        "prometheus": 2,
        "mariadb": 1,
    }
    assert all(service["wanted"] == service["healthy"] for service in services.values())
    for name, service in services.items():
        engine = "shared" if name == "mariadb" else "gvisor"
        assert {replica["engine"] for replica in service["replicas"]} == {engine}
    assert status["shield"]["mode"] == "on"
    assert {probe["name"]: probe["lost"] for probe in status["probes"]} == {
        "write-sizes": 0,
        "sends": 0,
    }
    table = bazaar(machine, "status")
    assert table.code == 0
    assert "@[mariadb/brussels-k/1]:" in table.stdout


def test_its_services_answer(machine):
    status = json.loads(bazaar(machine, "status", "-o", "json").stdout)
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).status)"
    for service in status["services"]:
        if service["url"] and service["url"].startswith("http:"):
            done = machine.run("python3", "-c", ask, service["url"])
            assert done.stdout == "200\n", done
    done = bazaar(machine, "exec", "mariadb", "--", "mariadb", "-e", "select 6 * 7")
    assert (done.code, "42" in done.stdout) == (0, True)


def test_a_second_up_changes_nothing(machine):
    done = bazaar(machine, "up", SPEC)
    assert done.code == 0
    assert "No changes." in done.stdout.splitlines()
    assert done.seconds < SECOND_UP


def test_the_drills_print_their_figures(machine):
    done = bazaar(machine, "drill", "all", "-o", "json")
    # Goals are for a machine of one's own: here clients, flood and tests share two cores.
    assert done.code in (0, 1)
    assert done.silence < SILENCE
    told = json.loads(done.stdout)
    figures = {figure["name"]: figure for figure in told["figures"]}
    assert set(figures) >= FIGURES
    for name in FIGURES:
        assert figures[name]["value"] is not None, figures[name]
    assert done.code == int(any(figure["holds"] is False for figure in told["figures"]))
    for name in ("site.lost", "crash.lost", "crash.restarted"):
        assert figures[name]["value"] < 10, figures[name]
    assert "Traceback" not in done.stderr


def test_the_drills_leave_it_as_it_was(machine):
    deadline = time.monotonic() + 30
    while True:
        status = json.loads(bazaar(machine, "status", "-o", "json").stdout)
        if all(service["wanted"] == service["healthy"] for service in status["services"]):
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    assert status["shield"]["mode"] == "on"
    namespaces = machine.look("ls /run/netns")
    assert [name for name in namespaces if not name.startswith(f"bz-{machine.name}")] == []


def test_down_leaves_nothing(machine):
    status = json.loads(bazaar(machine, "status", "-o", "json").stdout)
    (route,) = machine.look(f"ip route get {status['services'][0]['address']} | head -1")
    device = re.search(r"dev (\S+)", route)[1]
    assert device.startswith("bz")
    done = bazaar(machine, "down")
    assert done.code == 0
    assert "data" in done.stderr  # the volume is kept, and named
    assert machine.look("ls /var/lib/bazaar/bazaars/*/volumes") == ["data"]
    remains_nothing(machine, machine.name)
    done = bazaar(machine, "down", machine.name, "--volumes", "--yes")
    assert done.code == 0
    assert machine.look("ls -d /var/lib/bazaar/bazaars/*") == []
    assert machine.look(f"ls -d /sys/class/net/{device}") == []
    remains_nothing(machine, machine.name)


@pytest.mark.timeout(2400)
def test_its_own_tests_pass(machine):
    """Where something cannot be had in such a machine, a test is skipped and says what."""
    done = machine.run("./test", folder=CLONE, timeout=2300)
    lines = done.stdout.splitlines()
    start = next((n for n, line in enumerate(lines) if "= FAILURES" in line), -40)
    print(done.stderr[-2000:], *lines[start:], sep="\n")
    assert done.code == 0
    remains_nothing(machine, machine.name)


def remains_nothing(machine: Machine, name: str) -> None:
    """The kernel frees some of it a moment after its last user."""
    deadline = time.monotonic() + 5
    while True:
        found = {
            kind: lines
            for kind, command in REMAINS.items()
            if (lines := machine.look(f"({command.replace('{name}', name)}) 2>/dev/null"))
        }
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert found == {}
