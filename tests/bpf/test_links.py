"""Every kind of link attaches on this kernel and its program counts real events."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import shutil
import socket
import subprocess
import time

import pytest

from bazaar.bpf import filesystems, links, perf, pins
from bazaar.bpf.links import XdpMode
from bazaar.bpf.perf import Software
from bazaar.bpf.programs import AttachType, ProgramType
from bazaar.errors import KernelError, MissingError, UsageError
from tests.bpf import kernel
from tests.bpf.kernel import Counter

pytestmark = kernel.root


def test_tracepoint() -> None:
    with Counter(ProgramType.TRACEPOINT) as counter:
        with links.tracepoint(counter.program, "syscalls:sys_enter_getppid") as link:
            for _ in range(1000):
                os.getppid()
            seen = counter.count
            assert link.info().program_id == counter.program.id
        # Others on the machine may call it, too.
        assert 1000 <= seen < 1500
        after = counter.count
        for _ in range(1000):
            os.getppid()
        assert counter.count - after < 500


def test_tracefs_is_mounted_for_it() -> None:
    assert os.path.isdir(f"{filesystems.tracefs()}/events/sched/sched_switch")
    assert filesystems.bpffs() in filesystems.mounted("bpf")


@pytest.mark.parametrize("kind", [ProgramType.RAW_TRACEPOINT, ProgramType.TRACING])
def test_raw_tracepoints_with_and_without_types(kind: ProgramType) -> None:
    if kind == ProgramType.TRACING:
        attach, target = AttachType.TRACE_RAW_TP, links.tp_btf_target("sys_enter")
    else:
        attach, target = 0, 0
    with Counter(kind, attach=attach, target=target) as counter:
        link = (
            links.tp_btf(counter.program)
            if target
            else links.raw_tracepoint(counter.program, "sys_enter")
        )
        with link:
            for _ in range(1000):
                os.getppid()
        assert counter.count >= 1000


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_profile_samples_every_cpu() -> None:
    with Counter(ProgramType.PERF_EVENT) as counter:
        with links.profile(counter.program, 99) as group:
            assert len(group.links) == len(perf.online_cpus())
            busy(1)
        # Our own CPU was busy all the time: 99 samples, less what the machine took away.
        assert 30 <= counter.count <= 110 * len(perf.online_cpus())


def test_interval_fires_on_one_cpu() -> None:
    with Counter(ProgramType.PERF_EVENT) as counter:
        with links.interval(counter.program, 50_000_000) as group:
            assert len(group.links) == 1
            time.sleep(1)
        assert 15 <= counter.count <= 22


def test_software_events() -> None:
    with Counter(ProgramType.PERF_EVENT) as counter:
        with links.perf_event(counter.program, Software.CONTEXT_SWITCHES, period=1):
            for _ in range(50):
                time.sleep(0.001)
        assert counter.count >= 50
        with pytest.raises(UsageError, match="either a period or a frequency"):
            links.perf_event(counter.program, Software.CPU_CLOCK)


def test_uprobe_and_its_return() -> None:
    libc = next(
        line.split()[-1]
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines()
        if "libc.so" in line and " r-xp " in line
    )
    if not shutil.which("nm"):
        pytest.skip("nm (binutils) is not installed")
    symbols = subprocess.run(["nm", "-D", libc], capture_output=True, text=True, check=True).stdout
    found = [row for row in symbols.splitlines() if row.split()[-1].split("@")[0] == "getppid"]
    offset = int(found[0].split()[0], 16)
    getppid = ctypes.CDLL(None).getppid
    for returns in (False, True):
        with Counter(ProgramType.KPROBE) as counter:
            with links.uprobe(counter.program, libc, offset, returns=returns, pid=os.getpid()):
                for _ in range(50):
                    getppid()
            assert counter.count == 50


@pytest.mark.parametrize("mode", [XdpMode.NATIVE, XdpMode.GENERIC])
def test_xdp(mode: XdpMode) -> None:
    with kernel.namespace_with_veth() as (_, near), Counter(ProgramType.XDP, result=2) as counter:
        with links.xdp(counter.program, near, mode) as link:
            send_frames("vb", 10)
            assert wait_for(counter, 10)
            assert link.info().type == "xdp"
            assert link.info().ifindex == near
            with Counter(ProgramType.XDP, result=2) as second:
                with pytest.raises(KernelError, match="busy") as taken:
                    links.xdp(second.program, near, mode)
                assert "bpftool net" in (taken.value.hint or "")
                # Replaced without a gap.
                link.update(second.program)
                send_frames("vb", 10)
                assert wait_for(second, 10)
            link.detach()
        before = counter.count
        send_frames("vb", 10)
        time.sleep(0.05)
        assert counter.count == before


def send_frames(interface: str, count: int) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0x88B5))
        for _ in range(count):
            raw.send(b"\xff" * 6 + b"\2" * 6 + b"\x88\xb5" + bytes(50))


def wait_for(counter: Counter, wanted: int) -> bool:
    for _ in range(100):
        if counter.count >= wanted:
            return True
        time.sleep(0.01)
    return False


def test_xdp_errors_say_what_to_do() -> None:
    with Counter(ProgramType.XDP, result=2) as counter:
        with pytest.raises(KernelError, match="XdpMode.GENERIC"):
            links.xdp(counter.program, 1, XdpMode.NATIVE)
        with pytest.raises(KernelError, match="no such interface"):
            links.xdp(counter.program, 99_999)


@pytest.mark.parametrize("egress", [False, True])
def test_tcx(egress: bool) -> None:
    with kernel.namespace_with_veth() as (_, near):
        far = socket.if_nametoindex("vb")
        with Counter(ProgramType.SCHED_CLS) as counter:
            with links.tcx(counter.program, far if egress else near, egress=egress) as link:
                send_frames("vb", 10)
                assert wait_for(counter, 10)
                assert link.info().type == "tcx"
                link.detach()
            before = counter.count
            send_frames("vb", 10)
            time.sleep(0.05)
            assert counter.count == before


def cgroup_root() -> str:
    found = filesystems.mounted("cgroup2")
    if not found:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    return found[0]


CGROUP = [
    (ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS),
    (ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_INGRESS),
    (ProgramType.CGROUP_SOCK, AttachType.CGROUP_INET_SOCK_CREATE),
    (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    (ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP4_SENDMSG),
]
# Run in the cgroup: a datagram and a connection within this machine.
TRAFFIC = """
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname()[:2])
client.sendall(b"x")
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"x", ("127.0.0.1", 9))
"""


@pytest.mark.parametrize(("kind", "attach"), CGROUP, ids=lambda part: part.name)
def test_cgroups(kind: ProgramType, attach: AttachType) -> None:
    folder = f"{cgroup_root()}/{kernel.unique()}"
    os.mkdir(folder)
    try:
        with (
            Counter(kind, attach=attach, result=1) as counter,
            links.cgroup(counter.program, folder, attach) as link,
        ):
            subprocess.run(["python3", "-c", TRAFFIC, folder], check=True)
            assert counter.count >= 1
            link.detach()
        with Counter(kind, attach=attach, result=1) as counter:
            with pytest.raises(KernelError) as missing:
                links.cgroup(counter.program, f"{folder}/none", attach)
            assert missing.value.errno == errno.ENOENT
    finally:
        os.rmdir(folder)


def test_pinned_links_stay_attached() -> None:
    path = f"{pins.root()}/{kernel.unique()}"
    try:
        with Counter(ProgramType.PERF_EVENT) as counter:
            with links.interval(counter.program, 20_000_000) as group:
                group.pin(f"{path}/clock")
            before = counter.count
            time.sleep(0.2)
            assert counter.count > before
            with links.open_pinned_group(f"{path}/clock") as again:
                assert again.links[0].info().program_id == counter.program.id
            pins.remove_all(path)
            time.sleep(0.05)
            before = counter.count
            time.sleep(0.2)
            assert counter.count == before
            with pytest.raises(KernelError, match="nothing is pinned"):
                links.open_pinned_group(f"{path}/clock")
    finally:
        pins.remove_all(path)


def test_one_pinned_link() -> None:
    path = f"{pins.root()}/{kernel.unique()}"
    with Counter(ProgramType.TRACEPOINT) as counter:
        with links.tracepoint(counter.program, "syscalls:sys_enter_getppid") as link:
            link.pin(path)
        try:
            for _ in range(100):
                os.getppid()
            assert counter.count >= 100
            with links.open_pinned(path) as again:
                assert again.info().program_id == counter.program.id
        finally:
            pins.unpin(path)


MISSING = [
    (ProgramType.TRACEPOINT, links.tracepoint, "syscalls:sys_enter_nope", "no tracepoint"),
    (ProgramType.TRACEPOINT, links.tracepoint, "../../etc:x", "is no tracepoint's name"),
    (ProgramType.RAW_TRACEPOINT, links.raw_tracepoint, "nope", "no raw tracepoint 'nope'"),
]


@pytest.mark.parametrize(("kind", "attach", "name", "message"), MISSING)
def test_what_is_not_there(kind: ProgramType, attach, name: str, message: str) -> None:
    with Counter(kind) as counter, pytest.raises(MissingError, match=message):
        attach(counter.program, name)


def test_names_without_a_category_are_refused() -> None:
    with Counter(ProgramType.TRACEPOINT) as counter, pytest.raises(UsageError):
        links.tracepoint(counter.program, "sys_enter_write")
    with pytest.raises(MissingError, match="has no tracepoint 'nope'"):
        links.tp_btf_target("nope")


def test_no_descriptor_is_left() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with Counter(ProgramType.PERF_EVENT) as counter, links.profile(counter.program, 9):
        assert len(os.listdir("/proc/self/fd")) > len(before)
    with Counter(ProgramType.XDP) as counter, pytest.raises(KernelError):
        links.xdp(counter.program, 99_999)
    assert sorted(os.listdir("/proc/self/fd")) == before
