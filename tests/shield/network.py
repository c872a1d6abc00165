"""Namespaces of a test's own: a door, and senders wired to it by veths."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bazaar.host import namespaces
from bazaar.shield import devices

DOOR = "10.99.0.1"
SENDER = "10.99.0.2"
DOOR6, SENDER6 = "fd99::1", "fd99::2"


@dataclass(frozen=True)
class Wire:
    """`door` has an interface `door0`, `sender` one `out0` at its other end."""

    name: str
    door: str
    sender: str
    door_mac: bytes
    sender_mac: bytes

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire at the sender's end."""
        with (
            namespaces.enter(self.sender),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        ):
            raw.bind(("out0", 0))
            for frame in frames:
                raw.send(frame)


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    """Two namespaces and a veth pair, gone afterwards."""
    name = f"t{os.getpid()}{uuid.uuid4().hex[:4]}"
    door, sender = f"{name}d", f"{name}s"
    try:
        namespaces.create(door)
        namespaces.create(sender)
        namespaces.batch([namespaces.veth("door0", "out0", sender)], door)
        namespaces.batch(
            [f"address add {DOOR}/24 dev door0", f"address add {DOOR6}/64 dev door0 nodad"], door
        )
        namespaces.batch(
            [
                "link set out0 up",
                f"address add {SENDER}/24 dev out0",
                f"address add {SENDER6}/64 dev out0 nodad",
            ],
            sender,
        )
        devices.receive_offload("door0", True, door)
        yield Wire(name, door, sender, devices.mac("door0", door), devices.mac("out0", sender))
    finally:
        for namespace in (door, sender):
            namespaces.delete(namespace)


def until(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `check` came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return check()
