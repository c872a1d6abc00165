"""The balance: real HAProxy, real servers, real faults."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bazaar.errors import NetworkError
from bazaar.host import namespaces, paths
from bazaar.model.site import Backend, Health, Publish
from bazaar.site import balance, network, runtime
from tests.site.conftest import Ground, eventually, needs
from tests.site.fronts import HEALTH, free_port, front, get, healthy, serve
from tests.site.load import Load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(autouse=True)
def haproxy():
    needs("haproxy")


def test_every_replica_in_turn(ground: Ground):
    backends = [ground.replica("u", 1), ground.replica("u", 2), ground.replica("k", 1)]
    one = serve(ground, *backends)
    said = [get(f"http://{one.address}/") for _ in range(9)]
    assert said == said[:3] * 3
    assert set(said) == {backend.id for backend in backends}
    status = balance.status(ground.bazaar)["web"]
    assert [each.sessions for each in status] == [3, 3, 3]
    assert "Layer7 check passed" in status[0].detail


def test_a_replica_is_told_who_asks(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    host = ground.address(0, 1)
    assert f"x-forwarded-for: {host}" in get(f"http://{one.address}/head")


def test_a_killed_replica_costs_at_most_what_was_in_flight(ground: Ground):
    backends = [ground.replica("u", 1, "delay=0.02"), ground.replica("k", 1, "delay=0.02")]
    one = serve(ground, *backends)
    with Load(one.address) as load:
        time.sleep(0.5)
        killed = time.monotonic()
        ground.kill("web/u/1")
        time.sleep(2)
    assert load.failures_begun_after(killed) == []
    assert len(load.failures) <= load.clients
    assert load.answers["web/u/1"] > 0
    assert load.answers["web/k/1"] > load.answers["web/u/1"]
    assert healthy(ground) == {"web/k/1"}
    ground.replica("u", 1)
    eventually(lambda: healthy(ground) == {"web/u/1", "web/k/1"}, 2)


def test_a_lost_site_costs_at_most_what_was_in_flight(ground: Ground):
    """The site falls silent: no refusals, only packets that are never answered."""
    backends = [ground.replica(site, number) for site in ("u", "k") for number in (1, 2)]
    one = serve(ground, *backends)
    with Load(one.address, clients=4) as load:
        time.sleep(0.5)
        network.isolate(ground.bazaar, "u")
        lost = time.monotonic()
        before = sum(load.answers.values())
        eventually(lambda: sum(load.answers.values()) > before + 8, 8)
        eventually(lambda: healthy(ground) == {"web/k/1", "web/k/2"})
        time.sleep(0.3)
        begun = time.monotonic()
        before = load.answers["web/k/1"]
        eventually(lambda: load.answers["web/k/1"] > before + 20, 2)
        network.restore(ground.bazaar, "u")
        eventually(lambda: len(healthy(ground)) == 4)
    assert load.failures_begun_after(lost) == []
    assert len(load.failures) <= load.clients
    assert max(load.longest(lost, begun)) < 6, "a request waited too long for another replica"
    assert load.answers["web/u/1"] > 0


def test_replicas_come_and_go_without_a_lost_request(ground: Ground):
    first, second = ground.replica("u", 1, "delay=0.01"), ground.replica("k", 1, "delay=0.01")
    one = serve(ground, first)
    folder = paths.bazaar(ground.bazaar) / "balance"
    reloads = runtime.workers(folder).reloads
    with Load(one.address) as load:
        time.sleep(0.2)
        serve(ground, first, second)
        time.sleep(0.3)
        balance.apply(ground.bazaar, [front(ground, replace(first, draining=True), second)])
        drained = {each.id: each for each in balance.status(ground.bazaar)["web"]}
        assert drained["web/u/1"].detail.startswith("DRAIN")
        eventually(lambda: balance.status(ground.bazaar)["web"][0].current == 0)
        load.answers.clear()
        time.sleep(0.3)
        assert load.answers["web/u/1"] == 0
        balance.apply(ground.bazaar, [front(ground, second)])
        ground.kill("web/u/1")
        time.sleep(0.2)
    assert load.failures == []
    assert [each.id for each in balance.status(ground.bazaar)["web"]] == ["web/k/1"]
    assert runtime.workers(folder).reloads == reloads


def test_leaving_without_draining_first_loses_nothing_either(ground: Ground):
    first, second = ground.replica("u", 1, "delay=0.05"), ground.replica("k", 1, "delay=0.05")
    one = serve(ground, first, second)
    with Load(one.address) as load:
        time.sleep(0.2)
        balance.apply(ground.bazaar, [front(ground, second)])
        time.sleep(0.2)
    assert load.failures == []


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "new connections"])
def test_a_reload_loses_nothing(ground: Ground, keep: bool):
    backends = [ground.replica("u", 1), ground.replica("k", 1)]
    one = serve(ground, *backends)
    folder = paths.bazaar(ground.bazaar) / "balance"
    before = runtime.workers(folder)
    with Load(one.address, keep=keep) as load:
        for step in range(3):
            time.sleep(0.2)
            health = replace(HEALTH, path=f"/{step}")
            balance.apply(ground.bazaar, [front(ground, *backends, health=health)])
            assert healthy(ground) == {"web/u/1", "web/k/1"}  # known states are handed on
        time.sleep(0.2)
    assert load.failures == []
    assert runtime.workers(folder).reloads == before.reloads + 3
    assert balance.running(ground.bazaar)


def test_nothing_changes_when_nothing_is_changed(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    folder = paths.bazaar(ground.bazaar) / "balance"
    before = (folder / "haproxy.cfg").read_text(), runtime.workers(folder)
    for _ in range(3):
        balance.apply(ground.bazaar, [one])
    assert before == ((folder / "haproxy.cfg").read_text(), runtime.workers(folder))


def test_a_new_replica_gets_nothing_before_it_answers(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    address = ground.connect("k", 1).address  # nobody listens there
    late = Backend("web/k/1", "k", address, 80)
    with Load(one.address, clients=2) as load:
        balance.apply(ground.bazaar, [front(ground, *one.backends, late)])
        time.sleep(0.6)
        assert healthy(ground) == {"web/u/1"}
    assert load.failures == []


def test_a_replica_that_moved(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    ground.kill("web/u/1")
    moved = replace(ground.replica("k", 3), id="web/u/1")
    serve(ground, moved)
    assert get(f"http://{one.address}/") == "web/k/3"


def test_a_failing_check_is_told(ground: Ground):
    serve(ground, ground.replica("u", 1))
    bad = ground.replica("k", 1, "status=500")
    balance.apply(ground.bazaar, [front(ground, ground.replica("u", 2), bad)])
    eventually(lambda: healthy(ground) == {"web/u/2"})
    [told] = [one for one in balance.status(ground.bazaar)["web"] if one.id == bad.id]
    assert not told.healthy
    assert told.detail == "Layer7 wrong status 500: X"


def test_marking_a_dead_replica_down(ground: Ground):
    serve(ground, ground.replica("u", 1), ground.replica("k", 1))
    ground.kill("web/u/1")
    balance.mark_down(ground.bazaar, "web", "web/u/1")
    assert healthy(ground) == {"web/k/1"}
    with pytest.raises(NetworkError, match="HAProxy refused"):
        balance.mark_down(ground.bazaar, "web", "web/u/9")


def test_the_nearest_site_first(ground: Ground):
    near, far = ground.replica("k", 1), ground.replica("u", 1)
    one = serve(ground, far, near, nearest="k")
    assert {get(f"http://{one.address}/") for _ in range(6)} == {"web/k/1"}
    ground.kill("web/k/1")
    assert {get(f"http://{one.address}/") for _ in range(6)} == {"web/u/1"}


def test_tcp(ground: Ground):
    ones = [
        ground.replica("u", 1, "mode=echo", port=7),
        ground.replica("k", 1, "mode=echo", port=7),
    ]
    one = front(ground, *ones, mode="tcp", port=7, health=Health("tcp", interval=0.5))
    balance.apply(ground.bazaar, [one])
    eventually(lambda: len(healthy(ground)) == 2)
    said: set[str] = set()
    for _ in range(4):
        with socket.create_connection((one.address, 7), timeout=5) as client:
            stream = client.makefile("rw")
            said.add(stream.readline().strip())
            stream.write("hello\n")
            stream.flush()
            assert stream.readline() == "hello\n"
    assert said == {"web/u/1", "web/k/1"}


def test_it_works_without_privileges_and_in_little_memory(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    with Load(one.address, clients=20):
        time.sleep(0.5)
        folder = paths.bazaar(ground.bazaar) / "balance"
        worker = runtime.workers(folder).current
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines()
        )
    assert status["Uid"].split() != ["0"] * 4
    assert int(status["CapEff"], 16) == 0
    assert int(status["VmRSS"].split()[0]) < 60_000  # kB


def test_died_and_started_again(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    assert not balance.keep(ground.bazaar)
    master = balance.running(ground.bazaar)
    assert master
    os.kill(master, signal.SIGKILL)
    eventually(lambda: balance.running(ground.bazaar) is None)
    assert balance.status(ground.bazaar) == {}
    assert balance.keep(ground.bazaar)
    eventually(lambda: healthy(ground) == {"web/u/1"})
    assert get(f"http://{one.address}/") == "web/u/1"


def test_slow_to_answer_is_not_dead(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    master = balance.running(ground.bazaar)
    assert master
    os.kill(master, signal.SIGSTOP)  # as on a machine that has no time for it
    waking = threading.Timer(6.0, os.kill, (master, signal.SIGCONT))
    waking.start()
    try:
        balance.apply(ground.bazaar, [one])
    finally:
        waking.join()
    assert balance.running(ground.bazaar) == master
    assert healthy(ground) == {"web/u/1"}


def test_found_again_without_its_pid_file(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    master = balance.running(ground.bazaar)
    folder = paths.bazaar(ground.bazaar) / "balance"
    for damage in ("", "1\n", f"{os.getpid()}\n", "99999999\n"):
        (folder / "haproxy.pid").write_text(damage)
        assert balance.running(ground.bazaar) == master
    (folder / "haproxy.pid").unlink()
    (folder / "applied.json").write_text('{"struct')  # cut short
    balance.apply(ground.bazaar, [one])
    assert balance.running(ground.bazaar) == master
    balance.stop(ground.bazaar)
    assert balance.running(ground.bazaar) is None
    assert not Path(f"/proc/{master}/exe").exists()


def test_a_front_made_anew_gets_a_balance_anew(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    before = balance.running(ground.bazaar)
    namespaces.delete(network.front_namespace(ground.bazaar))
    network.ensure_front(ground.bazaar, ground.subnet)
    for number, site in ((1, "u"), (2, "k")):
        network.ensure_site(ground.bazaar, site, ground.address(number, 0) + "/24")
    assert balance.running(ground.bazaar) is None
    serve(ground, *one.backends)
    assert balance.running(ground.bazaar) not in (None, before)
    assert get(f"http://{one.address}/") == "web/u/1"


def test_two_at_once(ground: Ground):
    backends = [ground.replica("u", 1), ground.replica("k", 1)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                balance.apply(ground.bazaar, [front(ground, *backends[: number + 1])])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    one = serve(ground, *backends)
    assert {get(f"http://{one.address}/") for _ in range(4)} == {"web/u/1", "web/k/1"}


def test_interrupted_anywhere_the_next_apply_converges(ground: Ground):
    """`apply` killed by SIGKILL at growing delays, in its own process."""
    backends = [ground.replica("u", 1), ground.replica("k", 1)]
    code = (
        "import sys, json; from bazaar.site import balance; from bazaar.model.site import *\n"
        "b, a, port, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])\n"
        "backends = tuple(Backend(*row) for row in rows)\n"
        "for publish in ((Publish('127.0.0.1', port),), ()):\n"
        "    balance.apply(b, [Front('web', a, 80, health=Health('http', '/', 0.5, 1.0),"
        " backends=backends[:1 + len(publish)], publish=publish)])\n"
    )
    rows = json.dumps([[one.id, one.site, one.address, one.port] for one in backends])
    address, port = ground.address(0, 10), free_port()
    for step in range(8):
        command = [sys.executable, "-c", code, ground.bazaar, address, str(port), rows]
        maker = subprocess.Popen(command)
        time.sleep(0.1 + 0.05 * step)
        maker.kill()
        maker.wait()
        serve(ground, *backends)
        assert {get(f"http://{address}/") for _ in range(4)} == {"web/u/1", "web/k/1"}
        masters = [one for one in haproxies(ground) if parent(one) not in haproxies(ground)]
        assert masters == [balance.running(ground.bazaar)]
        if step % 2:
            balance.stop(ground.bazaar)
            assert haproxies(ground) == []


def haproxies(ground: Ground) -> list[int]:
    folder = str(paths.bazaar(ground.bazaar) / "balance").encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if folder in words and b"haproxy" in words[0]:
            found.append(int(entry.name))
    return sorted(found)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_stopping_leaves_nothing(ground: Ground):
    port = free_port()
    serve(ground, ground.replica("u", 1), publish=(Publish("127.0.0.1", port),))
    balance.stop(ground.bazaar)
    balance.stop(ground.bazaar)
    assert haproxies(ground) == []
    assert not (paths.bazaar(ground.bazaar) / "balance").exists()
    assert not namespaces.exists(f"bz-{ground.bazaar}.host")
    assert network.observed(ground.bazaar).addresses == ()


def test_no_fronts_no_balance(ground: Ground):
    serve(ground, ground.replica("u", 1))
    balance.apply(ground.bazaar, [])
    assert balance.running(ground.bazaar) is None


def test_a_service_less(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    other = replace(one, service="api", address=ground.address(0, 11), backends=())
    balance.apply(ground.bazaar, [one, other])
    assert network.observed(ground.bazaar).addresses == (one.address, other.address)
    balance.apply(ground.bazaar, [one])
    assert network.observed(ground.bazaar).addresses == (one.address,)
    assert get(f"http://{one.address}/") == "web/u/1"
