"""What goes wrong on the way to a cluster is told, does no harm, and is mended by running again."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bazaar.errors import BazaarError, ClusterError, SpecError
from bazaar.host import machines, remote
from bazaar.up import cluster_life, cluster_request, clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET, healthy, on, own_state

pytestmark = [pytest.mark.xdist_group("cluster-faults"), pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
NAME = "faults"
# What `apply` says as each phase begins.
PHASES = ("looking at", "files and containerd", "etcd,", "control plane,", "kubelet,", "waiting")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.LocalMachine]:
    """A machine that sees our programs, and is no part of a cluster yet."""
    with own_state(tmp_path_factory, "faults"):
        (made,) = clusters.make_machines(1, QUIET)
        yield made


@pytest.fixture
def bare(machine: machines.LocalMachine) -> machines.LocalMachine:
    """The machine as it was before any cluster, whatever the test before came to."""
    machines.start(["m1"], QUIET)
    if cluster_request.store.load(NAME) is not None:
        clusters.reset(NAME, QUIET)
    return machine


def request(machine: machines.LocalMachine, *more: str, **changes: str) -> Request:
    there = machine.machine
    values = {"key": there.key, "known_hosts": there.known_hosts, **changes}
    user = values.pop("user", "root")
    places = [f"m1={user}@{there.address}", *more]
    return Request(name=NAME, machines=places, control_planes=1, **values)


def refused(asked: Request, kind: type[BazaarError] = ClusterError) -> str:
    with pytest.raises(kind) as caught:
        clusters.apply(asked, QUIET)
    return str(caught.value)


def converges(machine: machines.LocalMachine) -> None:
    clusters.apply(request(machine), QUIET)
    assert healthy(NAME)
    assert clusters.plan(request(machine), QUIET)[1] == []


def test_it_is_told_who_may_not_come_in(bare: machines.LocalMachine, tmp_path: Path):
    remote.make_key(tmp_path / "other", "other")
    said = refused(request(bare, key=str(tmp_path / "other")))
    assert f"cluster {NAME}: m1 ({bare.machine.address}) does not let root in" in said
    assert "authorized_keys" in said

    public = (tmp_path / "other.pub").read_text().split()
    known = tmp_path / "known_hosts"
    known.write_text(f"{bare.machine.address} {' '.join(public[:2])}\n")
    said = refused(request(bare, known_hosts=str(known)))
    assert "shows another host key than the known one" in said and str(known) in said
    known.write_text("")
    assert "a host key that is not known" in refused(request(bare, known_hosts=str(known)))


def test_a_user_without_sudo_is_told_so(bare: machines.LocalMachine):
    on("m1", "useradd -m plain && cp -r /root/.ssh ~plain/ && chown -R plain: ~plain/.ssh")
    said = refused(request(bare, user="plain"))
    assert "reading its facts: exit 1" in said and "sudo: " in said
    assert "let plain use sudo without a password, or connect as root" in said


def test_what_is_there_already_forbids_it(bare: machines.LocalMachine):
    on(
        "m1",
        "mkdir /etc/rancher; systemd-run -q --unit squat socat TCP-LISTEN:10250,fork /dev/null",
    )
    try:
        assert "another Kubernetes (/etc/rancher)" in refused(request(bare), SpecError)
        on("m1", "rmdir /etc/rancher")
        said = refused(request(bare), SpecError)
        assert "port 10250, for kubelet, is taken by socat" in said and "m1 (" in said
    finally:
        on("m1", "systemctl stop squat; rmdir /etc/rancher", check=False)


@pytest.mark.parametrize(
    ("place", "size", "said"),
    [
        ("/etc/kubernetes", "16k", ("files and containerd: exit", "No space left")),
        ("/var/lib/etcd", "64k", ("etcd: exit 1", "no space left", "etcd.service did not start")),
    ],
)
def test_a_full_disk_is_told_and_the_rest_is_done_once_there_is_room(
    bare: machines.LocalMachine, place: str, size: str, said: tuple[str, ...]
):
    on("m1", f"mkdir -p {place} && mount -t tmpfs -o size={size},mode=700 tmpfs {place}")
    try:
        text = refused(request(bare))
    finally:
        on("m1", f"systemctl stop etcd; umount {place}", check=False)
    assert all(part in text for part in said), text
    assert "free space on m1" in text and "run the same again" in text
    converges(bare)


def test_one_that_is_not_there_does_not_hold_up_the_others(bare: machines.LocalMachine):
    nobody = bare.machine.address.rpartition(".")[0] + ".250"
    asked = request(bare, f"gone={nobody}")
    said = refused(asked)
    assert f"cluster {NAME}: gone ({nobody}) cannot be reached at port 22" in said
    assert "the other 1 machine did what was asked" in said
    (here, gone) = cluster_life.status(NAME, QUIET).nodes
    assert (here.state, here.failing, gone.state) == ("ready", (), "unreachable")
    # It is taken out though it does not answer.
    converges(bare)
    assert [node.name for node in cluster_request.known(NAME).nodes] == ["m1"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES[1:])
def test_a_machine_that_dies_is_told_and_started_again_goes_on(
    bare: machines.LocalMachine, phase: str
):
    dead: list[threading.Timer] = []

    def watch(text: str) -> None:
        if phase in text and not dead:
            dead.append(threading.Timer(0.2, lambda: machines.stop(["m1"], QUIET, now=True)))
            dead[0].start()

    with pytest.raises(
        ClusterError, match=r"m1 \(.*(the connection was lost|by signal 9)"
    ) as caught:
        clusters.apply(request(bare), watch)
    assert "run the same again" in str(caught.value)
    dead[0].join()
    machines.start(["m1"], QUIET)
    converges(bare)


def killed_at(condition: Callable[[str], bool], asked: Request) -> None:
    """`bazaar cluster apply` on a terminal, killed when what it says there fulfils a condition."""
    ours, theirs = pty.openpty()
    words = ["--name", NAME, "--machines", ",".join(asked.machines), "--control-planes", "1"]
    words += ["--key", str(asked.key), "--known-hosts", str(asked.known_hosts)]
    process = subprocess.Popen(
        [str(ROOT / "bazaar"), "cluster", "apply", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = ""
    try:
        while not condition(said):
            said += os.read(ours, 4096).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize(
    "phase",
    [pytest.param(phase, marks=() if phase == PHASES[3] else pytest.mark.slow) for phase in PHASES],
)
def test_killed_at_any_time_it_goes_on_when_run_again(bare: machines.LocalMachine, phase: str):
    killed_at(lambda said: phase in said, request(bare))
    converges(bare)
