"""A bazaar's network of a test's own, with real servers in its containers' namespaces."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from bazaar.errors import NetworkError
from bazaar.host import commands, namespaces
from bazaar.model.site import Attachment, Backend
from bazaar.site import balance, names, network

# X of 10.X.0.0/16, in turn: each worker has its own, away from where bazaars begin to look. A front
# that a test takes away and makes again must find its subnet still free.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
NUMBERS = itertools.cycle(range(100 + 20 * (_WORKER % 4), 120 + 20 * (_WORKER % 4)))
SERVER = Path(__file__).with_name("server.py")


def needs(*programs: str) -> None:
    """Skip, naming what is missing, where the real thing cannot run."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in programs:
        if commands.which(program) is None:
            pytest.skip(f"{program} is not installed")


def eventually(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


class Ground:
    """A front with the sites `u` and `k`, and what runs in them."""

    def __init__(self) -> None:
        self.bazaar = f"t{os.getpid()}x{uuid4().hex[:6]}"
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.subnet = ""

    def build(self) -> None:
        for attempt in range(20):  # another run of the tests has the same
            self.subnet = f"10.{next(NUMBERS)}.0.0/16"
            try:
                network.ensure_front(self.bazaar, self.subnet)
                break
            except NetworkError:
                network.remove_all(self.bazaar)
                if attempt == 19:
                    raise
        for number, site in enumerate(("u", "k"), start=1):
            network.ensure_site(self.bazaar, site, self.address(number, 0) + "/24")

    def address(self, net: int, host: int) -> str:
        return ".".join([*self.subnet.split(".")[:2], str(net), str(host)])

    def container(self, service: str, site: str, number: int) -> str:
        return f"{self.bazaar}.{service}.{site}.{number}"

    def connect(self, site: str, number: int, service: str = "web") -> Attachment:
        address = self.address(1 if site == "u" else 2, 10 + number)
        return network.connect(self.bazaar, site, self.container(service, site, number), address)

    def replica(self, site: str, number: int, *words: str, port: int = 80) -> Backend:
        """A container with a server in it that answers with its own name."""
        attachment = self.connect(site, number)
        name = f"web/{site}/{number}"
        command = [sys.executable, "-S", "-E", str(SERVER), attachment.address, str(port), name]
        with namespaces.enter(attachment.namespace):
            self.servers[name] = subprocess.Popen([*command, *words], stdout=subprocess.PIPE)
        out = self.servers[name].stdout
        assert out is not None and out.readline() == b"ready\n"
        return Backend(name, site, attachment.address, port)

    def kill(self, name: str) -> None:
        server = self.servers.pop(name)
        server.kill()
        server.wait()

    def destroy(self) -> None:
        for name in list(self.servers):
            self.kill(name)
        balance.stop(self.bazaar)
        names.stop(self.bazaar)
        network.remove_all(self.bazaar)


@pytest.fixture
def ground(state: Path) -> Iterator[Ground]:
    needs("ip")
    made = Ground()
    try:
        made.build()
        yield made
    finally:
        made.destroy()
