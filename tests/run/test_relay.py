"""What a published port does with connections: all bytes, both ends, resets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from bazaar.run.relay import Relay


@pytest.fixture
def relayed():
    """Forwards a new port to a function that is given each connection; the port."""
    made = []

    def start(serve=None) -> int:
        server = socket.create_server(("127.0.0.1", 0), backlog=256)
        inside = server.getsockname()[1]
        if serve is None:
            server.close()
        else:
            threading.Thread(target=accept, args=(server, serve), daemon=True).start()
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        until, end = os.pipe()
        relay = Relay("127.0.0.1", [(listener, inside)])
        thread = threading.Thread(target=relay.run, args=(until,))
        thread.start()
        made.append((thread, end, until, listener, server, relay))
        return listener.getsockname()[1]

    yield start
    for thread, end, until, listener, server, relay in made:
        os.close(end)
        thread.join(5)
        assert not thread.is_alive()
        os.close(until)
        relay.epoll.close()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # accept(2) does not see close(2)
        server.close()
        listener.close()


def accept(server, serve):
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def echo(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def whole(client) -> bytes:
    found = bytearray()
    while data := client.recv(1 << 20):
        found += data
    return bytes(found)


def test_everything_arrives_both_ways_and_so_does_the_end(relayed):
    data = os.urandom(1 << 20) * 8
    with socket.create_connection(("127.0.0.1", relayed(echo)), 20) as client:
        sender = threading.Thread(
            target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR))
        )
        sender.start()
        assert whole(client) == data
        sender.join()


def test_an_answer_comes_after_the_question_has_ended(relayed):
    def answer_at_the_end(connection):
        with connection:
            connection.sendall(str(len(whole(connection))).encode())

    with socket.create_connection(("127.0.0.1", relayed(answer_at_the_end)), 20) as client:
        client.sendall(b"x" * 3_000_000)
        client.shutdown(socket.SHUT_WR)
        assert whole(client) == b"3000000"


def test_where_nobody_listens_the_client_is_reset(relayed):
    # Maybe while it still connects.
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", relayed()), 20) as client,
    ):
        client.recv(1)


def test_a_server_that_goes_away_takes_its_client_alone(relayed):
    def once(connection):
        with connection:
            if connection.recv(1) == b"0":
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                )  # RST
                return
            connection.sendall(b"fine")

    port = relayed(once)
    with (
        socket.create_connection(("127.0.0.1", port), 20) as other,
        socket.create_connection(("127.0.0.1", port), 20) as client,
    ):
        client.sendall(b"0")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        other.sendall(b"1")
        assert whole(other) == b"fine"


def test_many_at_once(relayed):
    port = relayed(echo)
    clients = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(150)]
    for number, client in enumerate(clients):
        client.sendall(b"%03d" % number)
        client.shutdown(socket.SHUT_WR)
    for number, client in enumerate(clients):
        with client:
            assert whole(client) == b"%03d" % number
