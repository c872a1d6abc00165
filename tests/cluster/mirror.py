"""A mirror of all that a cluster is made of, with small programs, served by HTTP on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

from bazaar.cluster.binaries import parts
from bazaar.host import go_build

ARCH = go_build.architecture()


@contextlib.contextmanager
def serving(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def content(program: str) -> bytes:
    return f"#!/bin/sh\necho {program}\n".encode()


def publish(folder: Path, version: str = "1.36.3", of: tuple[parts.Part, ...] = ()) -> None:
    """Write what the projects publish, with small programs."""
    sums: dict[Path, str] = {}
    for part in of or parts.of(version):
        for release in part.releases:
            path = folder / release.path.format(arch=ARCH)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(published(release))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            listed = folder / release.checksums.format(arch=ARCH)
            # Kubernetes publishes a digest alone, the others lines as sha256sum writes them.
            alone = part.name == "Kubernetes"
            sums[listed] = sums.get(listed, "") + (digest if alone else f"{digest}  {path.name}\n")
    for path, text in sums.items():
        path.write_text(text)


def published(release: parts.Release) -> bytes:
    if set(release.members.values()) == {""}:
        return content(next(iter(release.members)))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for program, member in release.members.items():
            data = content(program)
            entry = tarfile.TarInfo("./" + member.format(arch=ARCH))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
