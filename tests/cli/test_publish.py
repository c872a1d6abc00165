"""`bazaar run -p` and `-d --rm`: ports that lead inside, and nothing left after the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from bazaar.cli import publishing
from bazaar.errors import UsageError
from tests.run.conftest import ENGINES, left, usable

ECHO = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        with client:
            while data := client.recv(65536):
                client.sendall(data)
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("8080:80", "127.0.0.1:8080->80/tcp"),
        ("8080:80/tcp", "127.0.0.1:8080->80/tcp"),
        ("0.0.0.0:8080:80", "0.0.0.0:8080->80/tcp"),
        ("[::1]:8080:80", "[::1]:8080->80/tcp"),
        ("0:80", "127.0.0.1:0->80/tcp"),
    ],
)
def test_ports_are_read_as_docker_reads_them(text, shown):
    [port] = publishing.parse([text])
    assert str(port) == shown


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["80"], "not [ADDRESS:]PORT:PORT"),
        (["8080:80:1:2"], "not [ADDRESS:]PORT:PORT"),
        (["8000-8010:80"], "not [ADDRESS:]PORT:PORT"),
        (["8080:80/udp"], "udp is not forwarded"),
        (["70000:80"], "from 1 to 65535"),
        (["8080:0"], "from 1 to 65535"),
        (["localhost:8080:80"], "no address"),
        (["8080:80", "8080:81"], "published twice"),
    ],
)
def test_wrong_ports(texts, said):
    with pytest.raises(UsageError) as caught:
        publishing.parse(texts)
    assert said in caught.value.message


def bazaar(*words):
    return subprocess.run(
        [sys.executable, "-m", "bazaar", *words], capture_output=True, text=True, check=False
    )


@pytest.fixture
def run(state):
    """Starts `bazaar run` on this machine's own root; nothing of it may stay."""
    made = []

    def start(engine, *options):
        usable(engine)
        name = f"t{os.getpid()}-{os.urandom(3).hex()}"
        made.append(name)
        words = ["run", *options, "--name", name, "--engine", engine, "dir:/", "--"]
        command = [sys.executable, "-m", "bazaar", *words, "/usr/bin/python3", "-c", ECHO]
        return name, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    yield start
    for name in made:
        bazaar("rm", "-f", name)
        assert not left(f"run.{name}")


def echoed(port: int, address: str = "127.0.0.1") -> bool:
    """Whether what is sent there comes back."""
    with socket.create_connection((address, port), 10) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        return client.recv(16) == b"hello"


def published(name: str) -> int:
    [row] = [row for row in json.loads(bazaar("ps", "-o", "json").stdout) if row["name"] == name]
    [port] = row["ports"]
    assert port.endswith("->7000/tcp") and port in bazaar("ps").stdout
    return int(port.partition("->")[0].rpartition(":")[2])


def free(port: int, patience: float = 3.0) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_leads_inside_and_goes_with_the_container(run, engine):
    name, process = run(engine, "-p", "0:7000")
    assert process.stdout.readline() == b"ready\n"
    port = published(name)
    assert echoed(port) and echoed(port)
    process.send_signal(signal.SIGINT)  # python, pid 1, has a handler for it alone
    process.communicate(timeout=30)
    assert free(port, patience=0), "the runner waits for it"


def test_a_taken_port_is_told_before_anything_starts(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        name, process = run("shared", "-p", f"{port}:7000")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 125 and out == b""
    said = f"port 7000 of {name} cannot be published: port {port} of 127.0.0.1 is taken by"
    assert said in err.decode() and str(os.getpid()) in err.decode()
    assert not left(f"run.{name}", patience=0)


def test_without_the_default_network_there_is_nothing_to_lead_to(state):
    done = bazaar("run", "-p", "8080:80", "--network", "none", "dir:/")
    assert done.returncode == 2 and "--network none" in done.stderr


def test_a_killed_runner_takes_no_port_along(run):
    name, process = run("shared", "-p", "0:7000")
    assert process.stdout.readline() == b"ready\n"
    port = published(name)
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    assert echoed(port), "the container runs on, and so does its port"
    [row] = json.loads(bazaar("ps", "-o", "json").stdout)
    os.kill(row["pid"], signal.SIGKILL)
    assert free(port)


def test_a_runner_that_is_killed_early_leaves_no_port(state, tmp_path):
    from bazaar.run.forwarder import Forwarder

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    forwarder = Forwarder("run.nobody", [(listener, 7000)])
    assert not free(port, patience=0)
    forwarder.release()
    assert free(port)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_detached_one_that_is_removed_when_it_ends(run, engine):
    name, process = run(engine, "-d", "--rm", "-p", "0:7000")
    assert process.communicate(timeout=30)[0].decode() == f"{name}\n"
    port = published(name)
    deadline = time.monotonic() + 20
    while True:
        try:
            if echoed(port):
                break
        except ConnectionResetError:  # it does not listen yet
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert bazaar("stop", "-t", "0", name).returncode == 0
    assert not left(f"run.{name}", patience=0), "who waits for the stop finds it gone"
    assert free(port, patience=0)
    assert json.loads(bazaar("ps", "-a", "-o", "json").stdout) == []


def test_what_a_killed_shim_could_not_remove_is_swept(run):
    name, process = run("shared", "-d", "--rm")
    process.communicate(timeout=30)
    from bazaar.host import paths
    from bazaar.run import containers

    record = json.loads((paths.containers() / f"run.{name}" / "process.json").read_text())
    os.kill(record["shim"], signal.SIGKILL)
    assert containers.sweep() == [], "it runs on"
    os.kill(record["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 5
    while containers.sweep() != [f"run.{name}"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    from bazaar.site import run_network

    run_network.disconnect_run(f"run.{name}")
