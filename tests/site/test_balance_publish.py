"""The balance on ports of the host, and TLS."""

import os
import socket
import ssl
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from bazaar.errors import NetworkError
from bazaar.host import namespaces, paths
from bazaar.model.site import Publish
from bazaar.site import balance, runtime
from tests.site.conftest import Ground, eventually, needs
from tests.site.fronts import free_port, get, serve

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(autouse=True)
def haproxy():
    needs("haproxy")


def test_published_on_loopback(ground: Ground):
    port = free_port()
    one = serve(ground, ground.replica("u", 1), publish=(Publish("127.0.0.1", port),))
    assert get(f"http://127.0.0.1:{port}/") == "web/u/1"
    assert namespaces.exists(f"bz-{ground.bazaar}.host")
    balance.apply(ground.bazaar, [one])  # our own port is not taken
    balance.apply(ground.bazaar, [replace(one, publish=())])
    eventually(lambda: not listening(port))
    assert not namespaces.exists(f"bz-{ground.bazaar}.host")
    assert get(f"http://{one.address}/") == "web/u/1"


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def test_a_taken_port_names_its_holder_and_changes_nothing(ground: Ground):
    one = serve(ground, ground.replica("u", 1))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        message = rf"port {port} of 127.0.0.1 is taken by .* \(pid {os.getpid()}\)"
        with pytest.raises(NetworkError, match=message):
            balance.apply(ground.bazaar, [replace(one, publish=(Publish("127.0.0.1", port),))])
    assert get(f"http://{one.address}/") == "web/u/1"
    with pytest.raises(NetworkError, match=r"this machine has no address 203\.0\.113\.7"):
        balance.apply(ground.bazaar, [replace(one, publish=(Publish("203.0.113.7", 80),))])


def test_a_port_taken_under_our_hands(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    """HAProxy fails to reload: the old worker serves on, and the next `apply` mends it."""
    one = serve(ground, ground.replica("u", 1))
    monkeypatch.setattr(balance.ports, "check_free", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(NetworkError, match="could not take over"):
            balance.apply(ground.bazaar, [replace(one, publish=(Publish("127.0.0.1", port),))])
        assert get(f"http://{one.address}/") == "web/u/1"
    balance.apply(ground.bazaar, [one])
    assert get(f"http://{one.address}/") == "web/u/1"
    folder = paths.bazaar(ground.bazaar) / "balance"
    assert runtime.workers(folder).failed == 0


def test_tls(ground: Ground, tmp_path: Path):
    needs("openssl")
    pem, key = tmp_path / "front.pem", tmp_path / "key.pem"
    address = ground.address(0, 10)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=web"),
            *("-addext", f"subjectAltName=IP:{address},IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + key.read_text())
    port = free_port()
    publish = (Publish("127.0.0.1", port),)
    serve(ground, ground.replica("u", 1), port=443, certificate=pem, publish=publish)
    trust = ssl.create_default_context(cafile=str(pem))
    for place in (f"https://{address}/head", f"https://127.0.0.1:{port}/head"):
        with urllib.request.urlopen(place, timeout=10, context=trust) as answer:
            assert "x-forwarded-proto: https" in answer.read().decode()


def test_a_certificate_that_is_none(ground: Ground, tmp_path: Path):
    one = serve(ground, ground.replica("u", 1))
    with pytest.raises(NetworkError, match="there is no certificate"):
        balance.apply(ground.bazaar, [replace(one, certificate=tmp_path / "none.pem")])
    (tmp_path / "bad.pem").write_text("nothing\n")
    with pytest.raises(NetworkError, match=r"HAProxy refuses its configuration: .*bad\.pem"):
        balance.apply(ground.bazaar, [replace(one, certificate=tmp_path / "bad.pem")])
    assert get(f"http://{one.address}/") == "web/u/1"
    balance.apply(ground.bazaar, [one])
