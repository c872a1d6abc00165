"""The API's client against a server of the test's own, over TLS with certificates of ours."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bazaar.cluster import pki
from bazaar.cluster.client import Access, Client
from bazaar.errors import ClusterError

NEW = {"status": 200, "answer": b"{}"}


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers as an API server does, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, str, bytes]]
    status: int
    answer: bytes
    connections: list[Any]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.connection)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type") or ""
        self.asked.append((self.command, self.path, kind, body))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    do_GET = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *words: Any) -> None:
        pass


class Api:
    """A server that asks for a certificate of the cluster's authority."""

    def __init__(self, folder: Path) -> None:
        self.keys = {"authorities": {"ca": pki.authority("kubernetes-ca")}}
        ca = self.keys["authorities"]["ca"]
        own = pki.issued(
            pki.Request("apiserver", "ca", "kube-apiserver", "", ("127.0.0.1",), True), self.keys
        )
        (folder / "server.pem").write_text(own["certificate"] + own["key"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca["certificate"])
        context.load_cert_chain(folder / "server.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.handler = type("Handler", (Answers,), dict(NEW, asked=[], connections=[]))
        self.context = context
        self.start()

    def start(self, port: int = 0) -> None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self.handler)
        server.daemon_threads = True
        server.socket = self.context.wrap_socket(server.socket, server_side=True)
        self.server = server
        self.port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in self.handler.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def client(self, authority: str = "", **changes: Any) -> Client:
        pair = pki.issued(pki.Request("supervisor", "ca", "bazaar:x"), self.keys)
        access = {
            "cluster": "paris",
            "servers": (f"https://127.0.0.1:{self.port}",),
            "authority": authority or self.keys["authorities"]["ca"]["certificate"],
            "certificate": pair["certificate"],
            "key": pair["key"],
        }
        return Client(Access(**(access | changes)), timeout=5)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    one = Api(tmp_path)
    yield one
    one.stop()


def test_it_asks_as_the_api_wants_it(api: Api):
    client = api.client()
    assert client.get("/api/v1/pods", labelSelector="a=b,c=d") == {}
    assert client.apply("/api/v1/namespaces/x", {"kind": "Namespace"}) == {}
    assert client.delete("/api/v1/namespaces/x")
    (get, patch, delete) = api.handler.asked
    assert get == ("GET", "/api/v1/pods?labelSelector=a%3Db%2Cc%3Dd", "", b"")
    assert patch[:2] == ("PATCH", "/api/v1/namespaces/x?fieldManager=bazaar&force=true")
    assert patch[2] == "application/apply-patch+yaml" and json.loads(patch[3]) == {
        "kind": "Namespace"
    }
    assert json.loads(delete[3]) == {"propagationPolicy": "Background"}


def test_what_is_not_there_is_none_and_what_is_refused_is_told(api: Api):
    client = api.client()
    api.handler.status = 404
    assert client.get("/api/v1/x") is None
    assert not client.delete("/api/v1/x")
    api.handler.status, api.handler.answer = 403, json.dumps({"message": "no, thanks"}).encode()
    for ask in (lambda: client.get("/a?b"), lambda: client.apply("/a?b", {})):
        with pytest.raises(ClusterError, match=r"cluster paris: \w+ /a: no, thanks"):
            ask()
    api.handler.answer = b"\xff not JSON"
    with pytest.raises(ClusterError, match="status 403"):
        client.get("/a")
    api.handler.status, api.handler.answer = 200, b"[]"
    with pytest.raises(ClusterError, match="status 200"):
        client.get("/a")


def test_it_goes_on_with_another_connection_and_another_server(api: Api):
    client = api.client()
    assert client.get("/1") == {}
    port = api.port
    api.stop()
    with pytest.raises(ClusterError, match="its API does not answer: https://127.0.0.1"):
        client.get("/2")
    api.start(port)
    assert client.get("/3") == {}
    nobody = "https://127.0.0.1:1"
    two = api.client(servers=(nobody, f"https://127.0.0.1:{api.port}"))
    assert two.get("/4") == {} and two.get("/5") == {}
    assert [asked[1] for asked in api.handler.asked] == ["/1", "/3", "/4", "/5"]


def test_a_server_of_another_authority_is_not_believed(api: Api):
    other = pki.authority("kubernetes-ca")["certificate"]
    with pytest.raises(ClusterError, match="certificate verify failed"):
        api.client(authority=other).get("/")
    assert api.handler.asked == []
