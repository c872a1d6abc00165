"""Network namespaces against the real kernel."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from bazaar.errors import KernelError, NetworkError
from bazaar.host import namespaces

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture
def name() -> Iterator[str]:
    prefix = f"t{os.getpid()}-{uuid4().hex[:6]}"
    yield prefix
    for entry in namespaces.entries(prefix):
        namespaces.delete(entry)


def listed() -> str:
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_made_listed_and_gone(name: str):
    assert namespaces.create(name, mark="bazaar test one")
    assert not namespaces.create(name)
    assert namespaces.exists(name)
    assert name in listed()
    assert namespaces.links(name)["lo"]["ifalias"] == "bazaar test one"
    assert "UP" in namespaces.links(name)["lo"]["flags"]
    assert namespaces.delete(name)
    assert not namespaces.delete(name)
    assert name not in listed()


def test_one_of_iproute2_is_known_too(name: str):
    subprocess.run(["ip", "netns", "add", name], check=True)
    assert namespaces.names(name) == [name]
    assert namespaces.delete(name)


def test_one_that_fails_half_way_has_no_name(name: str):
    with pytest.raises(NetworkError, match="link set nonesuch up"):
        namespaces.create(name, lines=["link add x type bridge", "link set nonesuch up"])
    assert namespaces.entries(name) == []


def test_a_bare_file_of_an_interruption_is_no_namespace(name: str):
    namespaces.create(name)
    bare = namespaces.path(f"{name}-bare")
    bare.touch()
    assert not namespaces.exists(bare.name)
    assert namespaces.names(name) == [name]
    assert namespaces.entries(name) == [name, bare.name]
    assert namespaces.create(bare.name)
    assert namespaces.delete(bare.name)
    assert not bare.exists()


def test_entering_moves_the_calling_thread_alone(name: str):
    namespaces.create(name)
    own = os.stat("/proc/self/ns/net").st_ino
    inside, release, seen = threading.Event(), threading.Event(), list[int]()

    def visit() -> None:
        with namespaces.enter(name):
            seen.append(os.stat("/proc/thread-self/ns/net").st_ino)
            inside.set()
            release.wait(10)
        seen.append(os.stat("/proc/thread-self/ns/net").st_ino)

    thread = threading.Thread(target=visit)
    thread.start()
    assert inside.wait(10)
    assert os.stat("/proc/thread-self/ns/net").st_ino == own
    release.set()
    thread.join()
    assert seen == [namespaces.identity(name), own]


def test_coming_back_after_an_exception(name: str):
    namespaces.create(name)
    own = os.stat("/proc/thread-self/ns/net").st_ino
    with pytest.raises(ZeroDivisionError), namespaces.enter(name):
        _ = 1 // 0
    assert os.stat("/proc/thread-self/ns/net").st_ino == own


def test_many_threads_at_once(name: str):
    failures: list[BaseException] = []

    def work(number: int) -> None:
        own = f"{name}-{number}"
        try:
            for _ in range(3):
                namespaces.create(own, mark=own)
                with namespaces.enter(own), socket.socket() as server:
                    server.bind(("127.0.0.1", 7))  # the same port in each
                    assert len(socket.if_nameindex()) == 1
                namespaces.delete(own)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_programs_started_inside_are_inside(name: str):
    namespaces.create(name)
    code = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
    with namespaces.enter(name):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(said.stdout) == namespaces.identity(name)


def test_a_veth_pair_between_two(name: str):
    left, right = f"{name}-a", f"{name}-b"
    namespaces.create(left)
    namespaces.create(right)
    namespaces.batch(
        [namespaces.veth("one", "two", right), "address add 10.9.9.1/24 dev one"], left
    )
    namespaces.batch(["address add 10.9.9.2/24 dev two", "link set two up"], right)
    with namespaces.enter(right):
        server = socket.create_server(("10.9.9.2", 7))
    with server, namespaces.enter(left):
        socket.create_connection(("10.9.9.2", 7), timeout=5).close()
    assert namespaces.remove_interface("one", left)
    assert not namespaces.remove_interface("one", left)
    assert not namespaces.interface_exists("two", right)


def test_moving_an_interface(name: str):
    left, right = f"{name}-a", f"{name}-b"
    namespaces.create(left, lines=["link add here type veth peer name other"])
    namespaces.create(right)
    namespaces.move_interface("here", right, rename="there", source=left)
    assert namespaces.interface_exists("there", right)
    assert not namespaces.interface_exists("here", left)


def test_sysctls_are_the_namespaces_own(name: str):
    key = "net.ipv4.ip_forward"
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    namespaces.create(name, sysctls=[(key, "0")])
    for value in ("1", "0"):
        namespaces.sysctl(key, value, name)
        assert namespaces.read_sysctl(key, name) == value
    namespaces.sysctl("net/ipv4/conf/lo/forwarding", "1", name)
    assert namespaces.read_sysctl("net/ipv4/conf/lo/forwarding", name) == "1"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
    with pytest.raises(NetworkError, match="is no sysctl"):
        namespaces.sysctl("net/../../etc/passwd", "1", name)


def test_a_failing_batch_names_command_and_place(name: str):
    namespaces.create(name)
    with pytest.raises(NetworkError, match=rf"ip link set nope up in {name}: Cannot find device"):
        namespaces.batch(["link set lo up", "link set nope up", "link set lo down"], name)
    assert "UP" in namespaces.links(name)["lo"]["flags"]


def test_several_questions_in_one_process(name: str):
    namespaces.create(name)
    links, routes = namespaces.queries(["link show", "route show"], name)
    assert [link["ifname"] for link in links] == ["lo"]
    assert routes == []


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", "-n", "a b", "x" * 300, "a\nb"])
def test_names_that_are_none(bad: str):
    with pytest.raises(NetworkError, match="cannot name a network namespace"):
        namespaces.create(bad)


def test_entering_what_is_not_there(name: str):
    with pytest.raises(NetworkError, match="there is no network namespace"), namespaces.enter(name):
        pass


def test_entering_what_is_no_namespace(name: str):
    namespaces.create(name)  # so that the folder is there
    namespaces.path(f"{name}-bare").touch()
    with pytest.raises(KernelError, match="cannot enter"), namespaces.enter(f"{name}-bare"):
        pass


def test_interface_names_fit_and_differ():
    names = {namespaces.interface_name("site", "b" * 40, str(number)) for number in range(500)}
    assert len(names) == 500
    assert all(len(one) == 15 and one.startswith("bz") for one in names)
    assert namespaces.interface_name("a", "bc") != namespaces.interface_name("ab", "c")


def test_a_killed_maker_leaves_no_name(name: str):
    """Killed at any moment: there is no namespace, or a whole one."""
    code = (
        "import sys; from bazaar.host import namespaces\n"
        "namespaces.create(sys.argv[1], mark='whole',"
        " lines=['link add eth0 type bridge', 'link set eth0 up'])\n"
    )
    outcomes: set[bool] = set()
    for step in range(12):
        own = f"{name}-{step}"
        maker = subprocess.Popen([sys.executable, "-c", code, own])
        time.sleep(0.03 + 0.006 * step)
        maker.kill()
        maker.wait()
        whole = namespaces.exists(own)
        if whole:
            links = namespaces.links(own)
            assert links["lo"]["ifalias"] == "whole"
            assert "UP" in links["eth0"]["flags"]
        outcomes.add(whole)
        namespaces.delete(own)
        assert namespaces.entries(own) == []
    assert outcomes  # both are usual; which, is the machine's affair
