"""A real bazaar in a state folder of its own, through the command line alone."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = "deb://bookworm?packages=python3"
# Says who it is, and which version of the description it was started by.
SERVER = """
import http.server, os, socket
class Who(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        text = f"{socket.gethostname()} {os.environ.get('VERSION', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 8000), Who).serve_forever()
"""


@dataclass
class Instance:
    """One bazaar under test."""

    name: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "bazaar.yaml"

    def write(self, text: str) -> None:
        self.file.write_text(f"bazaar: {self.name}\n{text}")

    def run(
        self, *words: str, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(ROOT / "bazaar"), *words],
            env={**os.environ, "BAZAAR_STATE": str(self.folder / "state"), **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"bazaar {' '.join(words)}: {done.returncode}\n{done.stderr}\n{done.stdout}"
            )
        return done

    def start(self, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(ROOT / "bazaar"), *words],
            env={**os.environ, "BAZAAR_STATE": str(self.folder / "state"), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def up(self) -> dict[str, Any]:
        return json.loads(self.run("up", str(self.file), "-o", "json").stdout)

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", self.name, "-o", "json").stdout)

    def service(self, name: str) -> dict[str, Any]:
        return next(service for service in self.status()["services"] if service["name"] == name)

    def wait(self, condition, timeout: float = 30.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if condition(status):
                return status
            assert time.monotonic() < deadline, json.dumps(status, indent=1)
            time.sleep(0.1)


def get(url: str, timeout: float = 5.0) -> str:
    # Never through a proxy that the environment names: these are addresses of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        return answer.read().decode()


class Polling:
    """A client that goes on asking, and keeps what it was told and what failed."""

    def __init__(self, url):
        self.url, self.answers, self.failures = url, [], []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        while not self.stop.is_set():
            try:
                self.answers.append(get(self.url))
            except OSError as error:
                self.failures.append(error)
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.stop.set()
        self.thread.join()


@pytest.fixture(scope="module")
def instance(tmp_path_factory, request):
    """An instance that is taken down at the end, whatever became of it."""
    made = Instance(
        f"t{os.getpid()}-{request.module.__name__[-4:]}".replace("_", ""),
        tmp_path_factory.mktemp("bazaar"),
    )
    yield made
    made.run("down", made.name, "--volumes", "--yes", check=False)


def named_namespaces() -> list[str]:
    """The network namespaces that have a name; the last one takes their folder along."""
    try:
        return os.listdir("/run/netns")
    except FileNotFoundError:
        return []
