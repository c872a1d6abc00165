"""Names at the front: real dnsmasq, asked over UDP and TCP by our own few bytes of DNS."""

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bazaar.errors import NetworkError
from bazaar.host import mounts, namespaces, paths
from bazaar.site import names, network
from tests.site import golden
from tests.site.conftest import Ground, eventually, needs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

A, AAAA = 1, 28
NO_SUCH_NAME = 3


def question(name: str, kind: int) -> bytes:
    """RFC 1035, 4.1: a header that asks for recursion, and one question."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def answer(reply: bytes) -> tuple[int, str | None]:
    """The reply's code and its last address."""
    count = struct.unpack(">H", reply[6:8])[0]
    return reply[3] & 15, socket.inet_ntoa(reply[-4:]) if count else None


def ask(server: str, name: str, kind: int = A) -> tuple[int, str | None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(question(name, kind), (server, 53))
        return answer(client.recv(512))


def ask_over_tcp(server: str, name: str) -> tuple[int, str | None]:
    with socket.create_connection((server, 53), timeout=3) as client:
        text = question(name, A)
        client.sendall(struct.pack(">H", len(text)) + text)
        return answer(client.makefile("rb").read(2 + 12 + len(text) - 12 + 16)[2:])


@pytest.fixture(autouse=True)
def dnsmasq():
    needs("dnsmasq")


def test_services_by_short_and_full_name(ground: Ground):
    server, web = ground.address(0, 2), ground.address(0, 10)
    names.apply(ground.bazaar, {"web": web})
    assert ask(server, "web") == (0, web)
    assert ask(server, f"web.{ground.bazaar}.bazaar") == (0, web)
    assert ask(server, "WEB") == (0, web)
    assert ask_over_tcp(server, "web") == (0, web)
    assert ask(server, "web", AAAA) == (0, None)  # it exists, and has none: no second guess
    assert ask(server, f"web.{ground.bazaar}.bazaar", AAAA) == (0, None)


@pytest.mark.parametrize("name", ["shop", "shop.bazaar", "example.org", "localhost.localdomain"])
def test_what_is_not_there_does_not_exist(ground: Ground, name: str):
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    assert ask(ground.address(0, 2), name) == (NO_SUCH_NAME, None)


def test_a_container_resolves_by_its_resolv_conf(ground: Ground, tmp_path: Path):
    """glibc itself, in a container's namespace, with the file we would give it."""
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    inside = ground.connect("u", 1).namespace
    (tmp_path / "resolv.conf").write_text(names.resolv_conf(ground.bazaar, ground.subnet))
    said: list[str] = []
    code = "import socket; print(socket.gethostbyname('web'))"

    def work() -> None:
        mounts.separate(tmp_path / "resolv.conf", os.path.realpath("/etc/resolv.conf"))
        with namespaces.enter(inside):
            command = [sys.executable, "-S", "-E", "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        said.append(done.stdout + done.stderr)

    namespaces.aside(work)
    assert said == [ground.address(0, 10) + "\n"]


def test_changes_without_a_new_process(ground: Ground):
    server = ground.address(0, 2)
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    before = names.running(ground.bazaar)
    names.apply(ground.bazaar, {"db": ground.address(0, 11)})
    eventually(lambda: ask(server, "db") == (0, ground.address(0, 11)))
    assert ask(server, "web") == (NO_SUCH_NAME, None)
    names.apply(ground.bazaar, {"db": ground.address(0, 11)})
    assert before
    assert names.running(ground.bazaar) == before


def test_other_names_go_upstream_when_there_is_one(ground: Ground):
    """Another dnsmasq, in a container, plays the world's name server."""
    attachment = ground.connect("u", 1)
    with namespaces.enter(attachment.namespace):
        upstream = subprocess.Popen(
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
                *("--no-hosts", "--pid-file", "--bind-interfaces"),
                *(f"--listen-address={attachment.address}", "--address=/example.org/192.0.2.7"),
            ]
        )
    try:
        names.apply(ground.bazaar, {"web": ground.address(0, 10)}, upstream=[attachment.address])
        server = ground.address(0, 2)
        eventually(lambda: ask(server, "example.org") == (0, "192.0.2.7"))
        assert ask(server, "web") == (0, ground.address(0, 10))
        assert ask(server, f"shop.{ground.bazaar}.bazaar") == (NO_SUCH_NAME, None)
    finally:
        upstream.terminate()
        upstream.wait()


def test_it_works_without_root(ground: Ground):
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    status = Path(f"/proc/{names.running(ground.bazaar)}/status").read_text()
    [uid] = [line.split()[1] for line in status.splitlines() if line.startswith("Uid:")]
    assert uid != "0"


def test_died_and_started_again(ground: Ground):
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    assert not names.keep(ground.bazaar)
    pid = names.running(ground.bazaar)
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: names.running(ground.bazaar) is None)
    assert names.keep(ground.bazaar)
    assert ask(ground.address(0, 2), "web") == (0, ground.address(0, 10))


def test_found_without_its_pid_file_and_stopped(ground: Ground):
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    pid = names.running(ground.bazaar)
    folder = paths.bazaar(ground.bazaar) / "names"
    (folder / "dnsmasq.pid").write_text(f"{os.getpid()}\n")  # a recycled number
    assert names.running(ground.bazaar) == pid
    (folder / "dnsmasq.pid").unlink()
    assert names.running(ground.bazaar) == pid
    names.stop(ground.bazaar)
    names.stop(ground.bazaar)
    assert names.running(ground.bazaar) is None
    assert not folder.exists()


def test_a_front_made_anew_is_served_anew(ground: Ground):
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    namespaces.delete(network.front_namespace(ground.bazaar))
    network.ensure_front(ground.bazaar, ground.subnet)
    names.apply(ground.bazaar, {"web": ground.address(0, 10)})
    assert ask(ground.address(0, 2), "web") == (0, ground.address(0, 10))


def test_without_a_front(state: Path):
    with pytest.raises(NetworkError):
        names.apply(f"t{os.getpid()}none", {})


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("a b", "10.0.0.1"),
        ("web\n1.2.3.4 x", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("-a", "10.0.0.1"),
        ("web", "10.0.0"),
        ("web", "::1"),
        ("web", "10.0.0.1\n"),
    ],
)
def test_what_is_no_name_or_address(name: str, address: str):
    with pytest.raises(NetworkError):
        names.hosts_file("fosdem", {name: address})


def test_files_as_expected():
    golden.check("hosts", names.hosts_file("fosdem", {"web": "10.44.0.10", "DB": "10.44.0.11"}))
    golden.check("dnsmasq.conf", _anyone(names.configuration("fosdem", "10.44.0.2")))
    upstream = names.configuration("fosdem", "10.44.0.2", ["192.0.2.53"])
    golden.check("dnsmasq-upstream.conf", _anyone(upstream))
    golden.check("resolv.conf", names.resolv_conf("fosdem", "10.44.0.0/16"))


def _anyone(text: str) -> str:
    """The user dnsmasq runs as depends on the machine."""
    lines = text.splitlines(keepends=True)
    return "".join("user=…\n" if line.startswith("user=") else line for line in lines)
