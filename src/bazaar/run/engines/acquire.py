"""Getting a runsc: gVisor's own release, else a build of its Go module.

The module, its version and the hashes of all it needs are pinned in go/runsc (go.mod, go.sum);
the Go client checks them. It has to be built by a toolchain of its own age.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Generator
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.host import paths
from bazaar.run.engines import Progress

RELEASE = "https://storage.googleapis.com/gvisor/releases/release/latest"
TOOLCHAIN = "go1.23.6"
PROGRAM = "gvisor.dev/gvisor/runsc"
GO_MODULE = Path(__file__).resolve().parents[4] / "go" / "runsc"
LARGEST = 500 << 20  # bytes; a release is about 70 MB


def get(progress: Progress) -> Path:
    """A runsc in the cache. Raises MissingError with what each way of getting one said."""
    reasons: list[str] = []
    for way in (release, build):
        try:
            return way(progress)
        except MissingError as error:
            reasons.append(error.message)
    raise MissingError(
        "no gVisor could be had: " + "; ".join(reasons),
        hint="install runsc, or use --engine shared",
    )


def release(progress: Progress, base: str = RELEASE, timeout: float = 5.0) -> Path:
    """Download gVisor's newest release and check its SHA-512.

    Raises MissingError when it cannot be reached or is not what its checksum says.
    """
    source = f"{base}/{platform.machine()}/runsc"
    progress("gVisor: asking for its release")
    try:
        with urllib.request.urlopen(source + ".sha512", timeout=timeout) as answer:  # noqa: S310
            wanted = answer.read(4096).decode(errors="replace").split()[:1]
        if not wanted or not re.fullmatch(r"[0-9a-f]{128}", wanted[0]):
            raise MissingError(f"gVisor's release: {source}.sha512 holds no checksum")
        target = paths.cache() / "bin" / f"runsc-{wanted[0][:16]}"
        if target.exists():
            return target
        with _temporary(target) as temporary:
            _download(source, temporary, wanted[0], timeout, progress)
            temporary.chmod(0o755)
            temporary.replace(target)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise MissingError(f"gVisor's release cannot be had: {reason}") from error
    return target


def _download(source: str, target: Path, wanted: str, timeout: float, progress: Progress) -> None:
    digest, size = hashlib.sha512(), 0
    with urllib.request.urlopen(source, timeout=timeout) as answer, target.open("wb") as file:  # noqa: S310
        while chunk := answer.read(1 << 20):
            size += len(chunk)
            if size > LARGEST:
                raise MissingError(f"gVisor's release: {source} is larger than {LARGEST >> 20} MB")
            digest.update(chunk)
            file.write(chunk)
            progress(f"gVisor: downloading its release, {size >> 20} MB")
    if digest.hexdigest() != wanted:
        raise MissingError(
            f"gVisor's release: {source} does not have the checksum published with it"
        )


def key() -> str:
    """What names a build: the pinned module and everything it needs."""
    digest = hashlib.sha256(TOOLCHAIN.encode())
    for name in ("go.mod", "go.sum"):
        digest.update((GO_MODULE / name).read_bytes())
    return digest.hexdigest()[:16]


def build(progress: Progress) -> Path:
    """Build runsc from its Go module with a Go client of this machine or of Debian."""
    if not (GO_MODULE / "go.mod").is_file():
        raise MissingError(f"gVisor cannot be built: {GO_MODULE} is missing")
    target = paths.cache() / "bin" / f"runsc-{key()}"
    if target.exists():
        return target
    from bazaar.host import locks

    with locks.waiting(paths.cache() / "bin" / "build.lock"):
        if target.exists():  # somebody else built it meanwhile
            return target
        go, variables = go_client(progress)
        progress("gVisor: building runsc from its Go module, about a minute")
        with (
            _temporary(target) as temporary,
            tempfile.TemporaryDirectory(dir=target.parent) as copy,
        ):
            for name in ("go.mod", "go.sum"):
                shutil.copy(GO_MODULE / name, copy)
            command = [
                go,
                "build",
                "-mod=readonly",
                "-trimpath",
                "-ldflags=-s -w",
                "-o",
                str(temporary),
                PROGRAM,
            ]
            result = subprocess.run(
                command, cwd=copy, env=variables, capture_output=True, text=True, check=False
            )
            if result.returncode != 0:
                said = "\n".join(result.stderr.strip().splitlines()[-3:])
                raise MissingError(f"gVisor cannot be built: {said}")
            temporary.replace(target)
    return target


def go_client(progress: Progress) -> tuple[str, dict[str, str]]:
    """A Go client that can build the module, and its environment. Raises MissingError."""
    variables = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": TOOLCHAIN,
        "GOFLAGS": "-buildvcs=false",
    }
    variables.setdefault("HOME", "/root")
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", "/usr/lib/go-1.23/bin/go"):
        if candidate and Path(candidate).exists():
            result = subprocess.run(
                [candidate, "version"],
                env=variables,
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
            # A client older than 1.21 ignores GOTOOLCHAIN and answers with its own version.
            if result.returncode == 0 and f" {TOOLCHAIN.rpartition('.')[0]}" in result.stdout:
                return candidate, variables
    from bazaar.run.engines import debian_go

    go = debian_go.get(progress)
    return str(go), {**variables, "GOTOOLCHAIN": "local", "GOROOT": str(go.parents[1])}


@contextlib.contextmanager
def _temporary(target: Path) -> Generator[Path]:
    """A file beside ``target`` that is gone afterwards unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".runsc-")
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
