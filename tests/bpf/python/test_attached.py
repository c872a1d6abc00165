"""Tracepoint, raw tracepoint and cgroup programs in Python count what really happens."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest

from bazaar.bpf import filesystems, links
from bazaar.bpf.programs import AttachType
from bazaar.host.processes import pid_namespace
from tests.bpf import kernel

from . import attached

pytestmark = kernel.root
UDP, TCP = 17, 6


def read(found) -> dict[int, int]:
    return {
        int.from_bytes(key, "little"): int.from_bytes(value, "little")
        for key, value in found.items()
    }


def watch_ourselves(program) -> None:
    if pid_namespace():
        pytest.skip("the kernel numbers processes by its first pid namespace, and this is another")
    watched = attached.Watched(process=os.getpid())
    program.maps["watched"].update(struct.pack("<I", 0), watched.encode())


def test_tracepoint_counts_by_size(loaded) -> None:
    program = loaded(attached.writes)
    watch_ourselves(program)
    with (
        links.tracepoint(program.program, "syscalls:sys_enter_write"),
        open(os.devnull, "wb") as to,
    ):
        for size, times in ((777, 100), (778, 30)):
            for _ in range(times):
                os.write(to.fileno(), bytes(size))
    seen = read(program.maps["sizes"])
    assert (seen[777], seen[778]) == (100, 30)
    with open(os.devnull, "wb") as to:
        os.write(to.fileno(), bytes(777))
    assert read(program.maps["sizes"])[777] == 100


def test_raw_tracepoint_counts_by_number(loaded) -> None:
    program = loaded(attached.calls)
    watch_ourselves(program)
    with links.raw_tracepoint(program.program, "sys_enter"):
        for _ in range(1234):
            os.getppid()
    assert 1234 in read(program.maps["numbers"]).values()


# Run in the cgroup: a connection and datagrams within this machine.
TRAFFIC = """
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname()[:2])
client.sendall(b"x")
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused = 0
for _ in range(5):
    try:
        udp.sendto(bytes(100), receiver.getsockname())
    except PermissionError:
        refused += 1
udp.sendto(b"x", ("127.0.0.1", 7))
print(refused)
"""


@pytest.fixture
def cgroup():
    found = filesystems.mounted("cgroup2")
    if not found:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    folder = f"{found[0]}/{kernel.unique()}"
    os.mkdir(folder)
    yield folder
    os.rmdir(folder)


def refused(folder: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-I", "-c", TRAFFIC, folder], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


@pytest.mark.parametrize(
    ("compiled", "attach"),
    [
        (attached.sent, AttachType.CGROUP_INET_EGRESS),
        (attached.received, AttachType.CGROUP_INET_INGRESS),
    ],
    ids=["egress", "ingress"],
)
def test_cgroup_programs_count_packets(loaded, cgroup, compiled, attach) -> None:
    program = loaded(compiled)
    with links.cgroup(program.program, cgroup, attach):
        assert refused(cgroup) == 0
    seen = read(program.maps["packets"])
    # Port 7 is nobody's: that datagram is sent, but received by no socket of the cgroup.
    assert seen[UDP] == (6 if attach == AttachType.CGROUP_INET_EGRESS else 5)
    assert seen[TCP] >= 4
    assert read(program.maps["octets"])[0] > 5 * 128 + 4 * 40


def test_cgroup_program_refuses(loaded, cgroup) -> None:
    program = loaded(attached.no_datagrams)
    with links.cgroup(program.program, cgroup, AttachType.CGROUP_INET_EGRESS):
        assert refused(cgroup) == 5
    assert refused(cgroup) == 0
