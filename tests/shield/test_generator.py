import ipaddress
import socket
import struct
import time

import pytest

from bazaar.errors import BazaarError, CommandError, UsageError
from bazaar.host import namespaces
from bazaar.shield import generator, packets
from bazaar.shield.generator import Flood
from tests.shield.network import DOOR, DOOR6, Wire, wire


def flood(made: Wire, **changes: object) -> Flood:
    values: dict[str, object] = {
        "namespace": made.sender,
        "interface": "out0",
        "destination": DOOR,
        "destination_mac": made.door_mac.hex(":"),
        "rate": 20_000,
        "packets": 2_000,
        "seconds": 3.0,
    }
    return Flood(**{**values, **changes})  # type: ignore[arg-type]


def received(made: Wire, what: Flood) -> list[bytes]:
    """The frames that arrive at the door's end, as a packet socket there sees them."""
    with (
        namespaces.enter(made.door),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as raw,
    ):
        raw.bind(("door0", 0x0003))
        raw.settimeout(1.0)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        with generator.start(what) as running:
            sent = running.wait()
        assert sent.packets == what.packets
        frames: list[bytes] = []
        try:
            while len(frames) < what.packets:
                frame, address = raw.recvfrom(2048)
                mine = frame[:6] == made.door_mac and frame[6:12] == made.sender_mac
                if mine and address[2] != socket.PACKET_OUTGOING and frame[12:14] != b"\x08\x06":
                    frames.append(frame)
        except TimeoutError:
            pass
        return frames


@pytest.mark.parametrize("protocol", ["udp", "syn"])
def test_ipv4_frames_arrive_with_right_checksums_and_many_sources(protocol: str) -> None:
    with wire() as made:
        frames = received(made, flood(made, protocol=protocol, sources=16, packets=512, port=81))
    assert len(frames) >= 500
    found = {frame[26:30] for frame in frames}
    assert found == {bytes([198, 18, 0, number]) for number in range(16)}
    for frame in frames:
        assert len(frame) == 64
        assert packets.fold(packets.total(frame[14:34])) == 0xFFFF
        assert struct.unpack_from(">H", frame, 36) == (81,)
        if protocol == "syn":
            pseudo = frame[26:34] + struct.pack(">HH", packets.TCP, len(frame) - 34)
            assert packets.fold(packets.total(pseudo) + packets.total(frame[34:])) == 0xFFFF


def test_ipv6_frames_come_from_many_networks() -> None:
    with wire() as made:
        what = flood(
            made, destination=DOOR6, network="2001:db8:7::/48", sources=4, packets=256, size=80
        )
        frames = received(made, what)
    assert len(frames) >= 250
    assert {str(ipaddress.IPv6Address(frame[22:38])) for frame in frames} == {
        "2001:db8:7::", "2001:db8:7:1::", "2001:db8:7:2::", "2001:db8:7:3::",
    }  # fmt: skip
    for frame in frames:
        pseudo = frame[22:54] + struct.pack(">II", len(frame) - 54, packets.UDP)
        assert packets.fold(packets.total(pseudo) + packets.total(frame[54:])) == 0xFFFF


def test_rate_and_bounds_hold() -> None:
    with wire() as made:
        with generator.start(flood(made, rate=50_000, packets=10_000_000, seconds=1.0)) as running:
            sent = running.wait()
        assert 5_000 < sent.packets <= 50_000  # fewer than asked on a machine that is busy
        assert sent.seconds < 3.0


def test_a_flood_is_stopped_before_its_end_and_tells_what_it_sent() -> None:
    with wire() as made:
        began = time.monotonic()
        what = flood(made, rate=1000, packets=1_000_000, seconds=60.0)
        with generator.start(what) as running:
            time.sleep(1.0)
            sent = running.stop()
        assert time.monotonic() - began < 10
        assert 0 < sent.packets < 5000


def test_nothing_but_a_veth_is_flooded() -> None:
    with wire() as made:
        with pytest.raises(UsageError, match="no end of a veth"):
            generator.send(flood(made, interface="lo"))
        with (
            pytest.raises(CommandError, match="no end of a veth"),
            generator.start(flood(made, interface="lo")) as running,
        ):
            running.wait()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": 3}, {"sources": 0}, {"rate": 1}, {"seconds": 3600.0}, {"packets": 0},
        {"port": 70_000}, {"protocol": "tcp"}, {"network": "10.0.0.0/8"}, {"destination": "::1"},
    ],
)  # fmt: skip
def test_a_flood_without_sense_or_bounds_is_refused(wrong: dict[str, object]) -> None:
    with wire() as made, pytest.raises(BazaarError):
        generator.send(flood(made, **wrong))
