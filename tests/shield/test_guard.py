"""The shield at work between namespaces, with real packets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bazaar.bpf import pins
from bazaar.errors import NetworkError, UsageError
from bazaar.host import namespaces
from bazaar.shield import generator, guard, pinned
from bazaar.shield import packets as p
from bazaar.shield.generator import Flood
from bazaar.shield.guard import Guard
from bazaar.shield.settings import Budgets, ShieldSpec
from tests.shield.network import DOOR, DOOR6, SENDER, Wire, until, wire


@pytest.fixture
def made() -> Iterator[Wire]:
    with wire() as built:
        yield built


@contextlib.contextmanager
def at_door(made: Wire, name: str, **changes: object) -> Iterator[Guard]:
    found = guard.attach(name, ShieldSpec(**changes), ["door0"], made.door)  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.detach()


def flood(made: Wire, **changes: object) -> Flood:
    values: dict[str, object] = {
        "namespace": made.sender,
        "interface": "out0",
        "destination": DOOR,
        "destination_mac": made.door_mac.hex(":"),
        "rate": 100_000,
        "packets": 1_000_000,
        "seconds": 4.0,
    }
    return Flood(**{**values, **changes})  # type: ignore[arg-type]


@contextlib.contextmanager
def echo(made: Wire, port: int = 80) -> Iterator[None]:
    """A TCP server at the door that sends back what it gets."""
    with namespaces.enter(made.door):
        server = socket.create_server((DOOR, port))

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65_536):
                connection.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=[connection], daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def connect(made: Wire, port: int = 80) -> socket.socket:
    with namespaces.enter(made.sender):
        return socket.create_connection((DOOR, port), timeout=5)


def exchange(connection: socket.socket, size: int = 1000) -> None:
    connection.sendall(b"x" * size)
    left = size
    while left:
        left -= len(connection.recv(left))


def test_floods_are_found_and_blocked_within_a_second(made: Wire, shield_name: str) -> None:
    with at_door(made, shield_name) as shield:
        with generator.start(flood(made, sources=8)):
            began = time.monotonic()
            found: set[str] = set()
            while len(found) < 8 and time.monotonic() - began < 5:
                time.sleep(0.05)
                found |= {item.source for item in shield.tick().new}
        # By the kernel's own time stamps: how soon the last of them was shut out.
        took = time.monotonic() - began - min(item.since for item in shield.blocked())
        assert found == {f"198.18.0.{number}" for number in range(8)}
        assert took < 1.0
        assert shield.counters().blocks == 8
        assert shield.counters().dropped["blocked"] > 0


def test_a_flood_over_ipv6_is_blocked_by_network(made: Wire, shield_name: str) -> None:
    with at_door(made, shield_name) as shield:
        what = flood(made, destination=DOOR6, network="2001:db8:7::/48", sources=2, packets=50_000)
        with generator.start(what) as running:
            running.wait()
        assert {item.source for item in shield.blocked()} == {
            "2001:db8:7::/64",
            "2001:db8:7:1::/64",
        }


def test_many_sources_each_under_their_rate_are_held_by_the_budget(
    made: Wire, shield_name: str
) -> None:
    with at_door(made, shield_name) as shield:
        with generator.start(flood(made, sources=4096, packets=150_000, rate=150_000)) as running:
            sent = running.wait().packets
        found = shield.counters()
        assert shield.blocked() == []
        assert found.dropped["unserved"] > sent - 1000 * 6
        assert found.passed < 1000 * 6


@pytest.mark.parametrize("protocol", ["udp", "syn"])
def test_clients_at_their_rate_lose_nothing_in_a_flood(
    made: Wire, shield_name: str, protocol: str
) -> None:
    with echo(made), at_door(made, shield_name) as shield:
        shield.tick()
        with connect(made) as connection:
            exchange(connection)
            port = 80 if protocol == "syn" else 9
            with generator.start(flood(made, sources=4096, protocol=protocol, port=port)):
                for _ in range(100):
                    exchange(connection)
                    time.sleep(0.01)
                # And so may a client that it knows open one more connection.
                with connect(made) as second:
                    exchange(second)
        assert SENDER not in {item.source for item in shield.blocked()}
        assert shield.counters().dropped["rate"] == 0
        assert shield.counters().total_dropped > 10_000


def test_segments_of_connections_are_vouched_for_by_the_kernel(
    made: Wire, shield_name: str
) -> None:
    with echo(made), connect(made) as connection:
        budgets = Budgets(stray=1, syn=1)
        with at_door(made, shield_name, budgets=budgets, rate=100_000) as shield:
            # The door has never seen this connection begin.
            strangers = [
                p.ethernet(
                    p.ipv4(f"198.18.9.{number}", DOOR, p.TCP, p.tcp(99, 80, flags=p.ACK)),
                    destination=made.door_mac,
                )
                for number in range(50)
            ]
            made.send(*strangers)
            exchange(connection, 500_000)
            assert shield.counters().dropped["stray"] >= 45
            assert shield.counters().dropped["rate"] == 0


def test_dry_run_lets_a_flood_through_and_says_what_it_would_do(
    made: Wire, shield_name: str
) -> None:
    with at_door(made, shield_name, mode="dry-run") as shield:
        with generator.start(flood(made, sources=1, packets=50_000)) as running:
            running.wait()
        found = shield.counters()
        assert found.total_dropped == 0
        assert found.would_drop["blocked"] > 10_000
        assert [item.source for item in shield.blocked()] == ["198.18.0.0"]


def test_blocks_made_by_the_door_expire(made: Wire, shield_name: str) -> None:
    with at_door(made, shield_name, block_seconds=0.6) as shield:
        with generator.start(flood(made, sources=1, packets=40_000)) as running:
            assert until(lambda: bool(shield.tick().new), 2)
            running.wait()
        assert until(lambda: shield.blocked() == [], 3)
        assert until(lambda: shield.tick().expired == 1, 3)
        assert list(shield.pinned.maps["blocked"].keys()) == []


def test_blocked_and_allowed_for_real(made: Wire, shield_name: str) -> None:
    with echo(made), at_door(made, shield_name) as shield:
        shield.tick()
        with connect(made) as connection:
            shield.block(SENDER)
            connection.settimeout(0.4)
            with pytest.raises(TimeoutError):
                exchange(connection)
            shield.allow(f"{SENDER}/32")
            connection.settimeout(5)
            connection.recv(1000)
        with connect(made) as connection:
            exchange(connection)


def test_ports_that_begin_to_be_served_are_noticed(made: Wire, shield_name: str) -> None:
    with at_door(made, shield_name, budgets=Budgets(unserved=1)) as shield:
        datagrams = [
            p.ethernet(
                p.ipv4(f"198.18.4.{number}", DOOR, p.UDP, p.udp(1, 5353, b"hello" * 5)),
                destination=made.door_mac,
            )
            for number in range(20)
        ]
        made.send(*datagrams)
        assert until(lambda: shield.counters().dropped["unserved"] >= 18)
        with namespaces.enter(made.door):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((DOOR, 5353))
        with server:
            time.sleep(1.1)
            shield.tick()
            before = shield.counters().total_dropped
            made.send(*datagrams)
            time.sleep(0.2)
            assert shield.counters().total_dropped == before


# --- who holds it ---


def test_it_is_adopted_with_all_it_knows(made: Wire, shield_name: str) -> None:
    spec = ShieldSpec(ports=(("udp", 53),))
    first = guard.attach(shield_name, spec, ["door0"], made.door)
    first.block("198.18.7.7", 60)
    first.allow("198.18.8.0/24")
    number = first.pinned.program.id
    first.close()
    frame = p.ethernet(
        p.ipv4("198.18.7.7", DOOR, p.UDP, p.udp(1, 53, b"x" * 20)), destination=made.door_mac
    )
    made.send(frame)  # nobody holds the door now, and still it is kept
    second = guard.attach(shield_name, spec, ["door0"], made.door)
    try:
        assert second.pinned.program.id == number
        assert second.counters().dropped["blocked"] == 1
        assert [item.source for item in second.blocked()] == ["198.18.7.7"]
        assert second.allowed() == ["198.18.8.0/24"]
        assert [item.interface for item in second.attached] == ["door0"]
    finally:
        second.detach()


def test_it_survives_the_death_of_who_attached_it(made: Wire, shield_name: str) -> None:
    program = (
        "import sys, time\n"
        "from bazaar.shield import guard\n"
        "from bazaar.shield.settings import ShieldSpec\n"
        "g = guard.attach(sys.argv[1], ShieldSpec(rate=7), ['door0'], sys.argv[2])\n"
        "g.block('198.18.7.7')\nprint('there', flush=True)\ntime.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, shield_name, made.door],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"there\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    found = guard.find(shield_name)
    assert found is not None
    try:
        assert found.spec.rate == 7
        assert found.mode == "on"
        assert [item.source for item in found.blocked()] == ["198.18.7.7"]
        assert shield_name in pinned.names()
    finally:
        found.detach()
    assert guard.find(shield_name) is None


def test_another_version_of_the_program_takes_over_without_a_gap(
    made: Wire, shield_name: str
) -> None:
    first = guard.attach(shield_name, ShieldSpec(), ["door0"], made.door)
    first.block("198.18.7.7")
    first.pinned.about.digest = "of another version"
    first.pinned.remember()
    old = first.pinned.program.id
    first.close()
    with at_door(made, shield_name) as shield:
        assert shield.pinned.program.id != old
        assert xdp_program(made, "door0") == shield.pinned.program.id
        assert [item.source for item in shield.blocked()] == ["198.18.7.7"]


def test_what_is_half_made_is_made_again(made: Wire, shield_name: str) -> None:
    first = guard.attach(shield_name, ShieldSpec(), ["door0"], made.door)
    first.close()
    pins.unpin(f"{pinned.folder(shield_name)}/about")
    assert guard.find(shield_name) is None
    with at_door(made, shield_name) as shield:
        assert xdp_program(made, "door0") == shield.pinned.program.id


def test_interfaces_come_and_go(made: Wire, shield_name: str) -> None:
    with at_door(made, shield_name) as shield:
        namespaces.batch(["link add more0 up type veth peer name more1"], made.door)
        assert shield.attach_interface("more0", made.door).mode == "native"
        assert shield.attach_interface("more0", made.door).mode == "native"
        assert len(shield.attached) == 2
        assert shield.detach_interface("more0", made.door)
        assert not shield.detach_interface("more0", made.door)
        assert xdp_program(made, "more0") is None
        shield.attach_interface("more0", made.door)
        namespaces.batch(
            ["link delete more0", "link add more0 type veth peer name more1"], made.door
        )
        assert xdp_program(made, "more0") is None
        shield.attach_interface("more0", made.door)
        assert xdp_program(made, "more0") == shield.pinned.program.id
        namespaces.batch(["link delete more0"], made.door)
        shield.tidy()
        assert [item.interface for item in shield.attached] == ["door0"]


def test_where_the_driver_has_no_xdp_it_stands_behind_it_and_says_so(
    made: Wire, shield_name: str
) -> None:
    with at_door(made, shield_name) as shield:
        assert shield.attach_interface("lo", made.door).mode == "generic"
        shield.block("127.0.0.9")
        with namespaces.enter(made.door):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.bind(("127.0.0.1", 0))
            sender.bind(("127.0.0.9", 0))
            sender.sendto(b"x", receiver.getsockname())
            receiver.settimeout(0.3)
            with pytest.raises(TimeoutError):
                receiver.recv(10)
        assert shield.counters().dropped["blocked"] == 1


def test_an_unknown_interface_leaves_nothing(made: Wire, shield_name: str) -> None:
    with pytest.raises(NetworkError, match="no interface 'nowhere0'"):
        guard.attach(shield_name, ShieldSpec(), ["door0", "nowhere0"], made.door)
    assert guard.find(shield_name) is None
    assert xdp_program(made, "door0") is None


def test_detached_it_leaves_nothing(made: Wire, shield_name: str) -> None:
    shield = guard.attach(shield_name, ShieldSpec(), ["door0"], made.door)
    number = shield.pinned.program.id
    assert xdp_program(made, "door0") == number
    shield.detach()
    assert xdp_program(made, "door0") is None
    assert not os.path.exists(pinned.folder(shield_name))
    assert until(lambda: number not in programs())


@pytest.mark.parametrize("wrong", ["", "../up", "a.b", "a/b", "x" * 200])
def test_names_that_cannot_be_pinned_are_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        guard.attach(wrong, ShieldSpec())


def xdp_program(made: Wire, interface: str) -> int | None:
    """The id of the program the kernel says is at an interface."""
    (found,) = namespaces.query(f"link show dev {interface}", made.door)
    number: int | None = found.get("xdp", {}).get("prog", {}).get("id")
    return number


def programs() -> set[int]:
    listing = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True, text=True)
    return {entry["id"] for entry in json.loads(listing.stdout)}
