"""Measuring: reading wrk, the rules of the rival, the arena, and a short flood for real."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.errors import BazaarError, CommandError, NetworkError
from bazaar.host import namespaces
from bazaar.shield import arena, guard, load, measure, opponents
from bazaar.shield import packets as p
from bazaar.shield.load import Load
from bazaar.shield.measure import Sample
from bazaar.shield.settings import Budgets, ShieldSpec
from tests.shield.network import DOOR, Wire, until, wire

WRK = """\
Running 3s test @ http://198.19.255.1/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   301.61us  410.30us   9.95ms   96.70%
    Req/Sec    61.40k     3.86k   66.99k    70.00%
  Latency Distribution
     50%  239.00us
     75%  309.00us
     90%  447.00us
     99%    1.93ms
  183279 requests in 3.00s, 196.28MB read
{more}Requests/sec:  61035.34
Transfer/sec:     65.36MB
"""


@pytest.fixture
def made() -> Iterator[Wire]:
    with wire() as built:
        yield built


def test_wrk_is_read() -> None:
    got = load.parse(WRK.format(more=""))
    assert (got.requests_per_second, got.errors) == (61035.34, 0)
    assert (got.p50, got.p99) == (pytest.approx(0.239), pytest.approx(1.93))
    trouble = (
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    )
    assert load.parse(WRK.format(more=trouble)).errors == 15
    with pytest.raises(CommandError):
        load.parse("unable to connect to 198.19.255.1:80 Connection refused")


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_server_that_is_not_there_is_no_figure(made: Wire) -> None:
    with pytest.raises(CommandError):
        load.http(f"http://{DOOR}/", made.sender, seconds=1)


@pytest.mark.skipif(not shutil.which("nft"), reason="nftables is not installed")
@pytest.mark.parametrize("hook", opponents.HOOKS)
def test_the_rival_does_the_same_job(made: Wire, hook: str) -> None:
    spec = ShieldSpec(
        rate=100,
        burst=50,
        allow=("10.99.0.7",),
        ports=(("udp", 5353),),
        budgets=Budgets(unserved=20),
    )
    with namespaces.enter(made.door):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((DOOR, 5353))
        server.settimeout(0.3)

    def frames(source: str, count: int) -> list[bytes]:
        body = p.udp(9, 5353, b"x" * 20)
        packet = p.ipv4(source, DOOR, p.UDP, body)
        return [p.ethernet(packet, destination=made.door_mac)] * count

    with server, opponents.nftables(hook, spec, ["door0"], made.door):
        made.send(*frames("10.99.0.3", 200))
        limited = received(server)
        assert 50 <= limited < 120
        made.send(*frames("10.99.0.3", 5))
        assert received(server) == 0  # it is blocked now
        made.send(*frames("10.99.0.7", 200))
        assert received(server) == 200
    with namespaces.enter(made.door):
        left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert left.stdout == ""


def received(server: socket.socket) -> int:
    count = 0
    try:
        while True:
            server.recv(100)
            count += 1
    except TimeoutError:
        return count


def test_the_arena_is_wired_and_leaves_nothing(made: Wire) -> None:
    name = made.name
    with arena.build(name, made.door, [DOOR]) as built:
        with namespaces.enter(made.door):
            server = socket.create_server((DOOR, 80))
        with server, namespaces.enter(built.client.namespace):
            socket.create_connection((DOOR, 80), timeout=3).close()
        ends = {built.client.door_interface, built.attacker.door_interface}
        assert all(namespaces.interface_exists(end, made.door) for end in ends)
        assert set(namespaces.names(f"bz-{name}")) == {
            f"bz-{name}-{part}" for part in ("client", "attacker", "decoy", "sink")
        }
    assert namespaces.names(f"bz-{name}") == []
    assert not any(namespaces.interface_exists(end, made.door) for end in ends)


BUILDER = """
import sys, time
from bazaar.shield import arena
with arena.build(sys.argv[1], sys.argv[2], [sys.argv[3]]):
    print("built", flush=True)
    time.sleep(60)
"""


def build_and_be_killed(made: Wire, after: float | None = None) -> None:
    command = [sys.executable, "-c", BUILDER, made.name, made.door, DOOR]
    maker = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert maker.stdout is not None
    with maker.stdout:
        if after is None:
            assert maker.stdout.readline() == b"built\n"
        else:
            time.sleep(after)
        maker.kill()
        maker.wait()


def test_an_arena_whose_maker_was_killed_is_taken_away(made: Wire) -> None:
    before = set(namespaces.links(made.door))
    build_and_be_killed(made)
    build_and_be_killed(made)  # over what the first one left
    assert len(namespaces.names(f"bz-{made.name}")) == 4
    assert len(set(namespaces.links(made.door)) - before) == 2
    with namespaces.enter(f"bz-{made.name}-client"):
        client = subprocess.Popen(["sleep", "60"])
    try:
        arena.remove(made.name)
        assert namespaces.entries(f"bz-{made.name}") == []
        assert set(namespaces.links(made.door)) == before
        arena.remove(made.name)
    finally:
        client.kill()
        client.wait()


def test_killed_at_any_time_it_leaves_nothing_that_is_not_found(made: Wire) -> None:
    before = set(namespaces.links(made.door))
    for step in range(6):
        build_and_be_killed(made, 0.15 + 0.05 * step)
        arena.remove(made.name)
        assert namespaces.entries(f"bz-{made.name}") == []
        assert set(namespaces.links(made.door)) == before


def test_an_arena_takes_nothing_of_somebody_elses(made: Wire) -> None:
    foreign = f"bz-{made.name}-client"
    namespaces.create(foreign, mark="bazaar site x client")
    try:
        with (
            pytest.raises(NetworkError, match="is somebody else's"),
            arena.build(made.name, made.door, [DOOR]),
        ):
            pass
        arena.remove(made.name)
        assert namespaces.entries(f"bz-{made.name}") == [foreign]
    finally:
        namespaces.delete(foreign)


@pytest.mark.parametrize(
    ("dropped", "holds"), [((0.95, 0.2, 0.91), True), ((0.95, 0.2, 0.8), False), ((0, 0, 0), False)]
)
def test_a_flood_that_did_not_arrive_is_told(dropped: tuple[float, ...], holds: bool) -> None:
    load = Load(100, 1.0, 2.0, 0)
    samples = {
        "control": [Sample(load, 1_200_000, 0.0)] * 3,
        "with_shield": [Sample(load, 1_200_000, share) for share in dropped],
    }
    (told,) = [one for one in measure.figures(samples) if one.name == "flood.dropped"]
    assert (told.unit, told.goal, told.holds) == ("share", ">= 0.9", holds)


def test_how_the_rules_meet_the_clients_is_said() -> None:
    spec = ShieldSpec(rate=1_000_000)
    assert "are on the allow list" in measure.clients(spec, allowed=True)
    assert "may send 1,000,000 packets/s" in measure.clients(spec, allowed=False)


def test_figures_are_medians_with_ratios_of_their_own_round() -> None:
    def sample(requests: float, errors: int = 0) -> Sample:
        return Sample(Load(requests, 1.0, 2.0, errors), 1_200_000.0, 0.9)

    found = {
        figure.name: figure
        for figure in measure.figures(
            {
                "control": [sample(100), sample(1000), sample(200)],
                "with_shield": [sample(95), sample(930, errors=2), sample(200)],
                "without_shield": [sample(1), sample(2), sample(3)],
                "nftables_ingress": [sample(50), sample(600), sample(90)],
                "nftables_prerouting": [sample(40), sample(500), sample(80)],
            },
            note="on the list",
        )
    }
    shield = found["flood.with_shield"]
    assert (shield.value, shield.rival_value, shield.ratio) == (200, 200, 0.95)
    assert (shield.rival, shield.holds) == ("control", True)
    assert found["flood.rate"].holds is True
    assert found["flood.without_shield"].holds is None
    assert found["flood.without_shield"].ratio == 0.01
    best = found["flood.shield_or_nftables"]
    assert (best.rival, best.ratio) == ("nftables ingress", 2.222)
    assert (found["flood.dropped"].value, found["flood.dropped"].holds) == (0.9, True)
    assert shield.note == "2 errors; on the list"
    assert found["flood.without_shield"].note == ""
    with pytest.raises(BazaarError):
        measure.figures({"with_shield": [sample(1)]})


SERVER = """
defaults
  mode http
  timeout client 30s
frontend t
  bind {address}:80
  http-request return status 200 content-type text/plain string "hello"
"""


@pytest.mark.alone
@pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("haproxy")), reason="wrk or haproxy is not installed"
)
def test_clients_are_served_through_a_flood_with_the_shield(
    made: Wire, shield_name: str, tmp_path: Path
) -> None:
    (tmp_path / "haproxy.cfg").write_text(SERVER.format(address=DOOR))
    with namespaces.enter(made.door):
        server = subprocess.Popen(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")])
    try:
        assert until(lambda: reachable(made))
        shield = guard.attach(shield_name, ShieldSpec(), (), made.door)
        try:
            settings = measure.Settings(seconds=1, rounds=1, phases=("control", "with_shield"))
            samples = measure.flood(
                shield_name, shield, made.door, f"http://{DOOR}/", DOOR, settings=settings
            )
            assert shield.attached == ()
            assert shield.allowed() == []
            assert shield.mode == "on"
        finally:
            shield.detach()
    finally:
        server.terminate()
        server.wait()
    (got,) = samples["with_shield"]
    assert got.load.requests_per_second > 100
    assert got.load.errors == 0
    assert got.flood > 100_000
    assert got.dropped > 0.9


def reachable(made: Wire) -> bool:
    with namespaces.enter(made.sender):
        try:
            socket.create_connection((DOOR, 80), timeout=1).close()
        except OSError:
            return False
    return True
