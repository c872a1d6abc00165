"""Scripts and copies over SSH, and who is not let in, on real machines."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bazaar.errors import (
    HostKeyError,
    RefusedError,
    RemoteError,
    ScriptError,
    StateError,
    UnreachableError,
    UsageError,
)
from bazaar.host import remote
from bazaar.host.machines import LocalMachine
from bazaar.host.remote import Connection
from bazaar.model.machine import Machine
from bazaar.model.record import replace

pytestmark = pytest.mark.xdist_group("machines")


def on(machine: Machine, work: Callable[[Connection], Awaitable[Any]], timeout: float = 15) -> Any:
    """What ``work`` returns over a connection of its own."""

    async def connected() -> Any:
        async with remote.connect(machine, timeout=timeout) as there:
            return await work(there)

    return asyncio.run(connected())


def run(machine: Machine, script: str, **options: Any) -> remote.Result:
    return on(machine, lambda there: there.run(script, **options))


@pytest.fixture
def m1(two: list[LocalMachine]) -> Machine:
    return two[0].machine


@pytest.fixture
def m2(two: list[LocalMachine]) -> Machine:
    return two[1].machine


def test_a_script_gets_no_input_and_gives_output_errors_and_code(m1):
    script = "cat\nhostname\necho complaint >&2\nif true; then\n  exit 7\nfi\n# the end"
    result = run(m1, script, check=False)
    assert (result.code, result.output, result.errors) == (7, "m1\n", "complaint\n")


def test_a_script_is_on_nobodys_list_of_processes(m1):
    found = run(m1, "# password-4711\ncat /proc/[0-9]*/cmdline | tr '\\0' ' '").output
    assert "sshd" in found and "password-4711" not in found


def test_a_failure_names_machine_work_code_and_last_words(m1):
    with pytest.raises(ScriptError) as caught:
        run(m1, "echo no space left >&2; exit 3", what="starting containerd")
    assert caught.value.message.startswith(f"m1 ({m1.address}): starting containerd: exit 3 after")
    assert caught.value.message.endswith(": no space left")
    assert (caught.value.machine, caught.value.code) == ("m1", 3)


def test_a_script_that_takes_too_long_is_ended_there(m1):
    with pytest.raises(ScriptError, match=r"m1 .*: the script: no end after 1 s"):
        run(m1, "sleep 4711 & sleep 4711", timeout=1)
    assert run(m1, "pgrep -fx 'sleep 4711'", check=False).output == ""


def test_many_sessions_over_one_connection(m1):
    async def many(there: Connection) -> list[str]:
        results = await asyncio.gather(*(there.run(f"echo {n}; echo $PPID") for n in range(30)))
        return [result.output.split()[0] for result in results]

    assert on(m1, many) == [str(n) for n in range(30)]


def test_a_script_that_says_too_much_is_told(m1, monkeypatch):
    monkeypatch.setattr(remote, "OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(ScriptError, match=r"m1 .*: the script: more than 1 MiB of output"):
        run(m1, "yes")


def test_a_full_disk_here_is_no_fault_of_the_machine(m1, tmp_path):
    (tmp_path / ".back.part").symlink_to("/dev/full")
    with pytest.raises(StateError, match="cannot be written: No space left") as caught:
        on(m1, lambda there: there.fetch("/usr/bin/bash", tmp_path / "back"))
    assert (caught.value.hint or "").startswith("free space there")
    assert list(tmp_path.iterdir()) == []


def test_a_lost_connection_is_told(m1):
    with pytest.raises(UnreachableError, match="m1 .*: the script: the connection was lost"):
        run(m1, "pkill -9 -f 'sshd: root@notty'; sleep 60")


def test_what_is_asked_of_a_lost_connection_fails_at_once(m1):
    async def twice(there: Connection) -> float:
        with pytest.raises(UnreachableError):
            await there.run("pkill -9 -f 'sshd: root@notty'; sleep 60")
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="the connection was lost"):
            await there.run("true")
        return time.monotonic() - began

    assert on(m1, twice) < 1


def test_a_tree_is_copied_and_only_what_differs_is_again(m1, tmp_path):
    tree = tmp_path / "tree"
    (tree / "deep" / "empty").mkdir(parents=True)
    (tree / "deep" / "big").write_bytes(os.urandom(3 << 20))
    (tree / "a file's 'name' \\ with $all").write_text("odd")
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o750)
    (tree / "link").symlink_to("deep/big")

    async def copies(there: Connection) -> tuple[list[int], str]:
        sizes = [await there.send(tree, "/srv/copied")]
        sizes.append(await there.send(tree, "/srv/copied"))
        (tree / "run").write_text("#!/bin/sh\necho run\n")
        sizes.append(await there.send(tree, "/srv/copied"))
        (tree / "run").chmod(0o700)
        sizes.append(await there.send(tree, "/srv/copied"))
        script = "cd /srv/copied; ./run; readlink link; stat -c '%a %U' run; find . | sort; cat a*"
        await there.fetch("/srv/copied/link", tmp_path / "back")
        return sizes, (await there.run(script)).output

    sizes, said = on(m1, copies)
    big = (tree / "deep" / "big").stat().st_size
    odd = 3  # a name with a backslash is sent again: digests are listed otherwise
    assert sizes == [big + 3 + 19, odd, 19 + odd, 19 + odd]
    assert said.splitlines()[:3] == ["run", "deep/big", "700 root"]
    assert "./deep/empty" in said and said.endswith("odd")
    assert (tmp_path / "back").read_bytes() == (tree / "deep" / "big").read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_a_file_goes_to_its_path(m1, tmp_path):
    (tmp_path / "here").write_text("words")

    async def copy(there: Connection) -> list[Any]:
        sent = [await there.send(tmp_path / "here", "/opt/new/there") for _ in range(2)]
        return [*sent, (await there.run("cat /opt/new/there; ls /opt/new")).output]

    assert on(m1, copy) == [5, 0, "wordsthere\n"]


def test_what_cannot_be_copied_is_told(m1, tmp_path):
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    with pytest.raises(ScriptError, match=r"m1 .*: writing /proc/no/file: exit .*: .*/proc/no"):
        on(m1, lambda there: there.send(tmp_path / "big", "/proc/no/file"))
    run(m1, "mkdir -p /mnt/small; mount -t tmpfs -o size=1m small /mnt/small")
    with pytest.raises(ScriptError, match="writing /mnt/small/big") as caught:
        on(m1, lambda there: there.send(tmp_path / "big", "/mnt/small/big"))
    assert (caught.value.hint or "").startswith("free space on m1")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file"):
        on(m1, lambda there: there.send(tmp_path, "/srv/x"))
    with pytest.raises(ScriptError, match="reading /nowhere: .*No such file"):
        on(m1, lambda there: there.fetch("/nowhere", tmp_path / "got"))
    assert not list(tmp_path.glob("*got*"))


def test_through_one_machine_to_the_other(m1, m2):
    beyond = replace(m2, jump=m1)
    said = run(beyond, "hostname; echo $SSH_CONNECTION").output.split()
    assert said[:2] == ["m2", m1.address]
    nowhere = replace(m2, name="m9", port=1, jump=m1)
    with pytest.raises(UnreachableError, match=r"m9 .* at port 1 through m1 "):
        run(nowhere, "true")


def test_another_host_key_is_refused(m1, m2, tmp_path):
    known = tmp_path / "known"
    other = next(
        line.partition(" ")[2]
        for line in Path(m1.known_hosts).read_text().splitlines()
        if line.startswith(f"{m2.address} ")
    )
    known.write_text(f"{m1.address} {other}\n")
    with pytest.raises(HostKeyError, match="m1 .* shows another host key .*: SHA256:") as caught:
        run(replace(m1, known_hosts=str(known)), "true")
    assert "in between" in (caught.value.hint or "")


def test_an_unknown_host_key_is_refused_and_the_line_to_add_is_told(m1, tmp_path):
    known = tmp_path / "known"
    wary = replace(m1, known_hosts=str(known))
    with pytest.raises(HostKeyError, match="a host key that is not known") as caught:
        run(wary, "true")
    known.write_text((caught.value.hint or "").splitlines()[-1] + "\n")
    assert run(wary, "hostname").output == "m1\n"


def test_who_is_not_let_in_is_told(m1, tmp_path):
    remote.make_key(tmp_path / "stranger", "a stranger")
    with pytest.raises(RefusedError, match="m1 .* does not let root in") as caught:
        run(replace(m1, key=str(tmp_path / "stranger")), "true")
    assert "authorized_keys" in (caught.value.hint or "")
    with pytest.raises(RefusedError, match="key .*nowhere cannot be used: No such file"):
        run(replace(m1, key=str(tmp_path / "nowhere")), "true")


def test_who_does_not_answer_is_told(m1):
    with pytest.raises(
        UnreachableError, match=r"m1 .* cannot be reached at port 1: Connection refused"
    ):
        run(replace(m1, port=1), "true")
    nobody = m1.address.rpartition(".")[0] + ".254"
    began = time.monotonic()
    with pytest.raises(RemoteError, match="cannot be reached at port 22: no answer within 1 s"):
        on(replace(m1, address=nobody), lambda there: there.run("true"), timeout=1)
    assert time.monotonic() - began < 5


def test_root_by_sudo(m1):
    public = Path(f"{m1.key}.pub").read_text().strip()
    run(
        m1,
        "useradd -m -s /bin/bash op; mkdir -p ~op/.ssh\n"
        f"echo '{public}' >~op/.ssh/authorized_keys; chown -R op: ~op/.ssh",
    )
    op = replace(m1, user="op")
    assert run(op, "id -un").output == "op\n"
    with pytest.raises(ScriptError, match="sudo: a password is required") as caught:
        run(op, "id -u", root=True)
    assert "without a password" in (caught.value.hint or "")
    run(m1, "echo 'op ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/op")
    assert run(op, "id -u", root=True).output == "0\n"


def test_ssh_is_not_loaded_before_it_is_used():
    code = (
        "import bazaar.cli.main, bazaar.cli.machines, bazaar.host.machines, sys\n"
        "print('asyncssh' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
