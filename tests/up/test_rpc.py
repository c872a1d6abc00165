"""Calls over the socket: results, events, errors, hostile requests."""

import os
import socket
import stat
import threading

import pytest

from bazaar.errors import StateError, UsageError
from bazaar.up import rpc


@pytest.fixture
def server(tmp_path):
    def count(parameters, emit):
        for number in range(parameters["to"]):
            emit({"number": number})
        return "done"

    def refuse(parameters, emit):
        raise UsageError("not like this", hint="like that")

    folder = tmp_path / ("deep" * 40)  # longer than sockaddr_un holds
    server = rpc.Server(folder / "s.sock", {"count": count, "refuse": refuse})
    server.start()
    yield server
    server.close()
    assert not (folder / "s.sock").exists()


def test_events_come_before_the_result(server):
    seen = []
    assert rpc.call(server.path, "count", {"to": 3}, seen.append) == "done"
    assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]


def test_an_error_keeps_its_hint(server):
    with pytest.raises(StateError) as caught:
        rpc.call(server.path, "refuse")
    assert (caught.value.message, caught.value.hint) == ("not like this", "like that")


def test_unknown_method(server):
    with pytest.raises(StateError, match="does not know"):
        rpc.call(server.path, "none")


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"method": []}\n', b""]
)
def test_hostile_requests_do_not_end_the_server(server, line):
    folder = os.open(server.path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(f"/proc/self/fd/{folder}/s.sock")
        raw.sendall(line)
        raw.shutdown(socket.SHUT_WR)
        raw.recv(1000)
    os.close(folder)
    assert rpc.call(server.path, "count", {"to": 0}) == "done"


def test_a_client_that_goes_away_is_no_failure(server, monkeypatch):
    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    threads = set(threading.enumerate())
    folder = os.open(server.path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(f"/proc/self/fd/{folder}/s.sock")
        raw.sendall(b'{"method": "count", "parameters": {"to": 20000}}\n')
    os.close(folder)
    assert rpc.call(server.path, "count", {"to": 0}) == "done"
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)
    assert not failures, failures[0].exc_value


def test_nobody_there(tmp_path):
    with pytest.raises(ConnectionError):
        rpc.call(tmp_path / "none.sock", "ping")


def test_only_the_owner_may_open_it(server):
    assert stat.S_IMODE(server.path.stat().st_mode) & 0o077 == 0
