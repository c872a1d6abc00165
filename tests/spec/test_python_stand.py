"""The python stand's own program: what it says of clients that leave."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request

import pytest

from bazaar.spec import stands


@pytest.mark.skipif(os.geteuid() != 0, reason="the program gives up root's rights: it takes root")
def test_a_client_that_resets_its_connection_is_no_error(tmp_path):
    script = stands.get("python").command[-1].replace("/srv/www", str(tmp_path / "www"))
    # Unprivileged it reads its page below pytest's folders, which only root may enter.
    script = script.replace("os.setuid(65534)", "").replace("os.setgid(65534)", "")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-uc", script],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                client.recv(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            assert answer.status == 200
        time.sleep(0.2)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert errors == ""
