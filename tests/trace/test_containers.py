"""`--container`: only those containers' events, told apart in the kernel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar import trace
from bazaar.bpf import pins
from bazaar.errors import UsageError
from bazaar.host import cgroups, identity
from bazaar.trace import containers
from tests.trace.kernel import needs_root, value, wait

KNOWN = {
    1: "host",
    2: "web/north/1",
    3: "web/south/1 (gvisor)",
    4: "docker-0123456789ab",
    5: "website",
    6: "cgroup (gone)",
}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (["web/north/1"], ["web/north/1"]),
        (["web"], ["web/north/1", "web/south/1 (gvisor)"]),
        (["web/south", "website", "web"], ["web/south/1 (gvisor)", "website", "web/north/1"]),
        (["docker-0123456789ab"], ["docker-0123456789ab"]),
    ],
)
def test_names_are_those_that_are_shown(asked, shown):
    assert containers.running(KNOWN, asked) == shown


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("wbe", "Did you mean web"),
        ("web/nort/1", "Did you mean web/north/1"),
        ("host", "there are: docker-0123456789ab, web/north/1, web/south/1, website"),
        ("web/", "Did you mean"),
    ],
)
def test_a_name_nobody_has(asked, hint):
    with pytest.raises(UsageError) as caught:
        containers.running(KNOWN, [asked])
    assert asked in caught.value.message and caught.value.hint.startswith(hint)


def test_who_has_a_kernel_of_its_own_is_told():
    shown = containers.running(KNOWN, ["web", "website"])
    assert containers.hidden(shown) == {"gvisor": ["web/south/1"]}


class Groups:
    """Control groups as containers have them, with a process in each that writes when told."""

    def __init__(self) -> None:
        self.root = identity.hierarchy()
        self.names: list[str] = []
        self.processes: list[subprocess.Popen] = []

    def start(self, name: str, inside: str = "") -> subprocess.Popen:
        if name not in self.names:
            self.names.append(name)
            cgroups.create(name, hierarchies=cgroups.Hierarchies(self.root))
        folder: Path = self.root / cgroups.PARENT / name / inside
        folder.mkdir(exist_ok=True)
        shell = subprocess.Popen(
            ["sh", "-c", "while read x; do echo 1234567 > /dev/null; echo; done"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.processes.append(shell)
        cgroups.add([folder], shell.pid)
        return shell

    def close(self) -> None:
        for shell in self.processes:
            shell.kill()
            shell.communicate()
        for name in self.names:
            for folder in (self.root / cgroups.PARENT / name).glob("*/"):
                folder.rmdir()
            assert cgroups.remove(name, cgroups.Hierarchies(self.root))


@pytest.fixture
def groups(state) -> Iterator[Groups]:
    if identity.hierarchy() is None or not os.access(identity.hierarchy(), os.W_OK):
        pytest.skip("no cgroup v2 hierarchy that can be written to")
    made = Groups()
    yield made
    made.close()


def write(shell: subprocess.Popen) -> None:
    """One write of 8 bytes."""
    shell.stdin.write("x\n")
    assert shell.stdout.readline() == "\n"


WRITES = "tracepoint:syscalls:sys_enter_write { @[container, args.count] = count(); }"


def unique(word: str) -> str:
    return f"t{os.getpid()}-{word}-{os.urandom(3).hex()}"


@needs_root
def test_others_are_left_out_in_the_kernel(groups):
    one, two = unique("one"), unique("two")
    mine, nested, other = groups.start(one), groups.start(one, "inside"), groups.start(two)
    with trace.attach(trace.compile(WRITES, containers=[one])) as session:
        for shell in (mine, nested, other, mine):
            write(shell)
        session.finish()
        maps = session.maps()
    assert value(maps, "@", one, 8) == 3, "a group inside a container's belongs to it"
    assert {entry.key[0] for item in maps for entry in item.entries} == {one}


@needs_root
def test_predicates_and_a_pid_still_count(groups):
    name = unique("one")
    one, two = groups.start(name), groups.start(name)
    text = "tracepoint:syscalls:sys_enter_write /args.count == 8/ { @[pid] = count(); }"
    with trace.attach(trace.compile(text, containers=[name], pid=one.pid)) as session:
        write(one)
        write(two)
        session.finish()
        [whole] = session.maps()
    assert [(entry.key, entry.value) for entry in whole.entries] == [((one.pid,), 1)]


@needs_root
def test_one_that_comes_later_is_let_in(groups):
    """As a replica that is started again: another control group, the same name."""
    name, later = unique("one"), unique("later")
    shell = groups.start(name)
    text = "tracepoint:syscalls:sys_enter_write /args.count == 8/ { @[container] = count(); }"
    with trace.attach(trace.compile(text, containers=[name, later])) as session:
        write(shell)
        again = groups.start(later)

        def seen() -> bool:
            write(again)
            return value(session.maps(), "@", later) is not None

        wait(seen, session, [])
        assert value(session.maps(), "@", name) == 1


@needs_root
def test_the_restriction_outlives_its_process(groups, tmp_path):
    name, other = unique("one"), unique("two")
    shell, stranger = groups.start(name), groups.start(other)
    directory, description = f"{pins.root()}/{unique('pin')}", tmp_path / "probe.json"
    from bazaar.trace import pinned

    with trace.attach(trace.compile(WRITES, containers=[name])) as session:
        pinned.pin(session, directory, description)
    try:
        write(shell)
        write(stranger)
        with pinned.adopt(directory, description) as session:
            maps = session.maps()
    finally:
        pinned.remove(directory, description)
    assert value(maps, "@", name, 8) == 1
    assert {entry.key[0] for item in maps for entry in item.entries} == {name}
