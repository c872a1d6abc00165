"""The front from outside: published ports, TLS, one stand at once."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import urllib.request

import pytest

from tests.e2e.conftest import WEB, Instance, get

pytestmark = pytest.mark.xdist_group("e2e")


@pytest.fixture
def bazaar(tmp_path, request):
    made = Instance(f"p{os.getpid()}", tmp_path)
    yield made
    made.run("down", made.name, "--volumes", "--yes", check=False)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_published_with_tls(bazaar):
    folder = bazaar.folder
    pem, port = folder / "site.pem", free_port()
    certify(folder, pem)
    bazaar.write(f"""
sites: {{u: {{}}}}
services:
  web:
    image: {WEB}
    command: [python3, -m, http.server, "8000"]
    port: 8000
    mode: http
    publish: {port}
    certificate: {pem}
""")
    status = bazaar.up()
    address = status["services"][0]["address"]
    assert status["services"][0]["url"] == f"https://{address}/"
    assert status["services"][0]["port"] == 443
    assert status["services"][0]["published"] == [f"127.0.0.1:{port}"]
    trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
    )
    with opener.open(f"https://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.status == 200
    with socket.create_connection((address, 443), timeout=5) as plain:
        trusted.wrap_socket(plain, server_hostname="bazaar.test").close()
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout

    certify(folder, pem)  # renewed: the old one is no longer what is served
    assert "web" in bazaar.run("plan", str(bazaar.file)).stdout
    bazaar.run("up", str(bazaar.file))
    renewed = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    with socket.create_connection((address, 443), timeout=5) as plain:
        renewed.wrap_socket(plain, server_hostname="bazaar.test").close()


def certify(folder, pem):
    """A key and a certificate signed by itself, in one file as HAProxy wants them."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bazaar.test"
    words += f" -addext subjectAltName=DNS:bazaar.test,IP:127.0.0.1 -keyout {folder}/key.pem"
    command = [*words.split(), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())


def test_take_one_stand(bazaar):
    port = free_port()
    done = bazaar.run("take", "python", "--name", bazaar.name, "-p", str(port), "-o", "json")
    assert '"healthy": 1' in done.stdout
    assert "Python on python-here-1" in get(f"http://127.0.0.1:{port}/")
    assert bazaar.run("plan").stdout.splitlines()[-1] == "No changes."
