"""Local machines: made, reached, lost, killed half-way, and gone without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bazaar.errors import MachineError, MissingError, RemoteError
from bazaar.host import cgroups, machines, mounts, namespaces, outbound, processes, remote
from bazaar.host.machines import LocalMachine, network, places
from tests.host.conftest import need_machines

pytestmark = pytest.mark.xdist_group("machines")
ROOT = Path(__file__).resolve().parents[2]


def bazaar(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """The command line, in the state folder that the environment names."""
    return subprocess.run(
        [str(ROOT / "bazaar"), "machines", *words], capture_output=True, text=True, check=check
    )


def listed() -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(bazaar("list", "-o", "json").stdout)}


def run(machine: LocalMachine, script: str, **options: Any) -> str:
    async def connected() -> str:
        async with remote.connect(machine.machine) as there:
            return (await there.run(script, **options)).output

    return asyncio.run(connected())


def left() -> list[str]:
    """Everything there is of this state folder's machines, wherever it may lie."""
    tag, folder = places.tag(), str(places.folder())
    devices = [name for name, link in namespaces.links().items() if tag in link.get("ifalias", "")]
    commands = {pid: processes.command_line(pid) for pid in map(int, _numbers("/proc"))}
    found = {
        "process": [pid for pid, words in commands.items() if any(folder in w for w in words)],
        "mount": [point.target for point in mounts.mounted() if folder in point.target],
        "namespace": namespaces.entries(f"bzm-{tag}"),
        "interface": devices,
        "group": [name for name in cgroups.names() if tag in name],
        "table": [tag] * outbound.allowed(f"bazaar_machines_{tag}"),
        "file": list(places.folder().parent.glob("machines*")),
        "nspawn": list(Path("/run/systemd/nspawn").glob(f"*/*{tag}*")),
    }
    return [f"{kind} {name}" for kind, names in found.items() for name in names]


def _numbers(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.isdigit()]


@pytest.fixture
def fresh(state: Path) -> Iterator[None]:
    """A state folder whose machines are taken away at the end."""
    need_machines()
    yield
    machines.destroy(None, lambda _: None)


def test_each_is_reached_by_the_line_that_is_shown(two: list[LocalMachine]):
    said = bazaar("list").stdout.splitlines()
    assert said[0].split() == ["NAME", "ADDRESS", "SSH", "STATE", "READY", "IN"]
    shown = listed()
    assert list(shown) == ["m1", "m2"]
    for name, one in shown.items():
        assert one["state"] == "running" and 0 < one["ready_seconds"] < 60
        assert f"root@{one['address']}" in one["ssh"] and one["known_hosts"] in one["ssh"]
        assert f"{one['address']} ssh-ed25519 " in Path(one["known_hosts"]).read_text()
        assert stat.S_IMODE(Path(one["key"]).stat().st_mode) == 0o600
        assert [line.split()[0] for line in said[1:]].count(name) == 1
    keys = [line.split()[2] for line in places.known_hosts().read_text().splitlines()]
    assert len(set(keys)) == 2
    assert len({run(one, "cat /etc/machine-id") for one in two}) == 2


def test_they_reach_one_another(two: list[LocalMachine]):
    for one, other in (two, reversed(two)):
        run(one, f"ping -c 1 -W 2 {other.machine.address}")


def test_they_reach_the_world_by_this_machine(two: list[LocalMachine]):
    """A namespace beyond this machine, which knows no way back to theirs."""
    name = f"t{os.getpid()}-world"
    device = namespaces.interface_name(name)
    namespaces.create(name, lines=[])
    try:
        namespaces.batch(
            [
                namespaces.veth(device, "eth0", name),
                f"address add 198.51.100.1/30 dev {device}",
            ]
        )
        namespaces.batch(["address add 198.51.100.2/30 dev eth0", "link set eth0 up"], name)
        outbound.forward(device)
        run(two[0], "ping -c 1 -W 2 198.51.100.2")
    finally:
        namespaces.remove_interface(device)
        namespaces.delete(name)


def test_they_may_do_what_runs_containers(two: list[LocalMachine]):
    script = """set -e
    [ "$(systemctl is-system-running)" = running ]
    for group in /sys/fs/cgroup/*/; do
      mountpoint -q "$group" || continue
      mkdir "$group/probe"; rmdir "$group/probe"
    done
    mountpoint -q /sys/fs/bpf; test -c /dev/kmsg
    cd /var/lib/containerd; mkdir l u w m
    mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m; umount m
    unshare --net --pid --fork true
    sysctl -qw net.ipv4.ip_forward=1
    ip link add br9 type bridge; ip link add v9 type veth peer name w9; ip link del br9
    nft add table ip probe; iptables -t nat -L >/dev/null
    findmnt -no PROPAGATION /
    """
    assert run(two[0], script) == "shared\n"
    # Their network's settings are their own, and their groups are not this machine's.
    assert run(two[1], "sysctl -n net.ipv4.ip_forward") == "0\n"
    assert int(run(two[0], "cat /sys/fs/cgroup/*/cgroup.procs | wc -l")) < 200


@pytest.mark.parametrize("words", [(), ("--now",)])
def test_one_that_is_stopped_starts_again_with_what_it_held(
    two: list[LocalMachine], words: tuple[str, ...]
):
    run(two[1], "echo here >/var/lib/kept; sync")
    before = run(two[1], "cat /etc/machine-id")
    assert "m2: stopped" in bazaar("stop", "m2", *words).stderr
    assert [one["state"] for one in listed().values()] == ["running", "stopped"]
    assert "none of them ran" in bazaar("stop", "m2").stderr
    assert "m2: running" in bazaar("start", "m2").stderr
    assert run(two[1], "cat /var/lib/kept /etc/machine-id") == f"here\n{before}"
    assert "all of them ran" in bazaar("start", "m1", "m2").stderr
    assert "there is no machine m9" in bazaar("start", "m9", check=False).stderr


def test_one_that_reboots_is_itself_again(two: list[LocalMachine]):
    before = run(two[1], "cat /proc/sys/kernel/random/boot_id; echo kept >/root/kept; sync")
    with pytest.raises(RemoteError):
        run(two[1], "systemctl reboot; sleep 30")
    deadline = time.monotonic() + 30
    while True:
        try:
            after = run(two[1], "cat /proc/sys/kernel/random/boot_id /root/kept")
            if after.split()[0] != before.strip():
                break
        except RemoteError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert after.split()[1] == "kept"
    assert listed()["m2"]["state"] == "running"


def test_from_making_to_destroying(fresh: None):
    assert [one.machine.name for one in machines.create(2, lambda _: None)] == ["m1", "m2"]
    folder = places.folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # One that is powered off, and one whose first process is killed.
    with pytest.raises(RemoteError):
        run(machines.listing()[0], "systemctl poweroff; sleep 30")
    os.kill(_first_process("m2"), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while {one["state"] for one in listed().values()} != {"stopped"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert all(one["ssh"] is None for one in listed().values())

    # The next free name; those that ended keep theirs.
    made = json.loads(bazaar("create", "-o", "json").stdout)
    assert [one["name"] for one in made] == ["m3"]
    assert bazaar("destroy", "m1").stdout == ""
    assert list(listed()) == ["m2", "m3"]
    assert [one.machine.name for one in machines.create(1, lambda _: None)] == ["m1"]
    with pytest.raises(MissingError, match="there is no machine m7"):
        machines.destroy(["m1", "m7"], lambda _: None)
    assert len(listed()) == 3

    assert machines.destroy(None, lambda _: None) == ["m1", "m2", "m3"]
    assert left() == []
    assert machines.listing() == [] and machines.destroy(None, lambda _: None) == []


def _first_process(name: str) -> int:
    for root in dict.fromkeys(cgroups.find().v1.values()):
        file = root / cgroups.PARENT / places.identity(name) / "payload/init.scope/cgroup.procs"
        if file.exists():
            return int(file.read_text().split()[0])
    file = Path("/sys/fs/cgroup") / cgroups.PARENT / places.identity(name)
    return int((file / "payload/init.scope/cgroup.procs").read_text().split()[0])


@pytest.mark.parametrize("seconds", [0.25, 0.5, 0.75, 1.0])
def test_killed_while_it_makes_them(fresh: None, seconds: float):
    """What is left after kill -9 is listed, and made afresh, or taken away."""
    making = subprocess.Popen(
        [str(ROOT / "bazaar"), "machines", "create", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    making.kill()
    making.wait()
    assert {one["state"] for one in listed().values()} <= {"unfinished", "running"}
    if seconds == 0.75:
        made = [one["name"] for one in json.loads(bazaar("create", "2", "-o", "json").stdout)]
        assert all(listed()[name]["state"] == "running" for name in made)
        assert "unfinished" not in {one["state"] for one in listed().values()}
        assert all(run(one, "hostname").strip() == one.machine.name for one in machines.listing())
    machines.destroy(None, lambda _: None)
    assert left() == []


def test_one_that_does_not_come_up_says_why_and_leaves_the_others(
    fresh: None, monkeypatch: pytest.MonkeyPatch
):
    attach = network.attach

    def without_m2(name: str, own: Any) -> str:
        # Its root is no machine's.
        address = attach(name, own)
        if name == "m2":
            for path in ("sbin/init", "usr/lib/systemd/systemd"):
                (places.folder() / name / "root" / path).unlink(missing_ok=True)
        return address

    monkeypatch.setattr(network, "attach", without_m2)
    with pytest.raises(MachineError, match="m2: it ended while it booted") as caught:
        machines.create(3, lambda _: None)
    assert caught.value.hint == "m1, m3: running; the same again makes the rest"
    assert [one.machine.name for one in machines.listing()] == ["m1", "m3"]


def test_wrong_words_change_nothing(state: Path):
    for words, said in (
        (("destroy",), "which machines"),
        (("destroy", "--all", "m1"), "which machines"),
        (("create", "0"), "0 is not in the range"),
        (("create", "--package", "no;package"), "is no package's name"),
    ):
        done = bazaar(*words, check=False)
        assert done.returncode == 2 and said in done.stderr, words
    assert bazaar("list").stdout.splitlines()[1:] == []
    assert not (state / "machines").exists()


def test_what_is_lacking_is_told_before_a_root_is_made(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError, match="local machines need root"):
        machines.prepare((), lambda _: None)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_package_that_is_none_is_told(fresh: None):
    done = bazaar("create", "--package", "no-such-package", check=False)
    assert done.returncode == 1 and re.search("no-such-package", done.stderr)
    assert "Traceback" not in done.stderr and left() == []
