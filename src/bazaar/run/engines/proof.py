"""Trying a runsc: one container with a network of its own, in a namespace made for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

from bazaar.model.record import record

NETWORK = (  # TEST-NET-1, RFC 5737: meant for no real network
    "link add {outer} type veth peer name eth0 netns {name}",
    "-n {name} link set lo up",
    "-n {name} addr add 192.0.2.2/30 dev eth0",
    "-n {name} link set eth0 up",
)
# What a program says that would work at another moment.
PASSING = (
    "no space left on device",
    "cannot allocate memory",
    "resource temporarily unavailable",
    "too many open files",
)


@record
class Verdict:
    """How a trial ended: "" when the program works, else why not.

    ``refused``: the program said so itself and will again, which cannot be said of a machine
    that is busy or full.
    """

    problem: str
    refused: bool = False


def run_with_network(program: Path, timeout: float = 30.0, patience: float = 30.0) -> Verdict:
    """Run ``program --version`` inside itself, and then delete it, for which it has ``patience``.

    runsc is one static program, so it is also the container's: nothing else is needed.
    """
    name = f"bz-try-{uuid.uuid4().hex[:8]}"
    outer = f"bzt{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        return Verdict(f"no network namespace can be made: {_said(error)}")
    with tempfile.TemporaryDirectory(prefix="bazaar-runsc-") as temporary:
        folder = Path(temporary)
        try:
            for line in NETWORK:
                _ip(*line.format(name=name, outer=outer).split())
            _bundle(program, folder, name)
            return _run(program, folder, name, timeout, patience)
        except (OSError, subprocess.CalledProcessError) as error:
            return Verdict(_said(error))
        finally:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _bundle(program: Path, folder: Path, namespace: str) -> None:
    from bazaar.run.bundle import CAPABILITIES

    root = folder / "rootfs"
    for name in ("bin", "proc"):
        (root / name).mkdir(parents=True)
    copy = root / "bin" / "runsc"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    # HOME and PATH alone: what is tried is the sandbox, its network and its own Go runtime.
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/runsc", "--version"],
            "env": ["PATH=/bin", "HOME=/"],
            "cwd": "/",
            "capabilities": {"bounding": list(CAPABILITIES), "effective": [], "permitted": []},
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": f"/run/netns/{namespace}"},
            ]
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def _run(program: Path, folder: Path, name: str, timeout: float, patience: float) -> Verdict:
    command = [
        str(program),
        "--root",
        str(folder / "state"),
        "--ignore-cgroups",
        "--platform=systrap",
        "--network=sandbox",
        "--overlay2=none",
        "run",
        "--bundle",
        str(folder),
        name,
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", "")},
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end([*command[:3], "delete", "--force", name], name, patience)
        process.kill()
        process.communicate()
        return Verdict(f"no answer within {timeout:.0f} s")
    text = output.decode(errors="replace").strip()
    if process.returncode == 0 and "runsc version" in text:
        return Verdict("")
    words = text.splitlines()[-1][-300:] if text else ""
    problem = words or f"it ended with exit code {process.returncode} and no word"
    passing = process.returncode < 0 or any(one in text.lower() for one in PASSING)
    return Verdict(problem, refused=not passing)


def _end(delete: list[str], namespace: str, patience: float) -> None:
    """End a container's sandbox and gofer, which are in other process groups."""
    try:
        subprocess.run(delete, check=False, capture_output=True, timeout=patience)
    except subprocess.TimeoutExpired:  # what does not even do that is ended by its namespace
        said = subprocess.run(
            ["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True
        )
        for pid in said.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _said(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return (error.stderr or b"").decode(errors="replace").strip() or str(error)
    return str(error)
