"""Trying a runsc: one container with a network of its own, in a namespace made for it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid
from pathlib import Path

NETWORK = (  # TEST-NET-1, RFC 5737: meant for no real network
    "link add {outer} type veth peer name eth0 netns {name}",
    "-n {name} link set lo up",
    "-n {name} addr add 192.0.2.2/30 dev eth0",
    "-n {name} link set eth0 up",
)


def run_with_network(program: Path, timeout: float = 30.0) -> str:
    """Run ``program --version`` inside itself; "" when that worked, else its own words.

    runsc is one static program, so it is also the container's: nothing else is needed.
    """
    name = f"bz-try-{uuid.uuid4().hex[:8]}"
    outer = f"bzt{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made: {_said(error)}"
    with tempfile.TemporaryDirectory(prefix="bazaar-runsc-") as temporary:
        folder = Path(temporary)
        try:
            for line in NETWORK:
                _ip(*line.format(name=name, outer=outer).split())
            _bundle(program, folder, name)
            return _run(program, folder, name, timeout)
        except (OSError, subprocess.CalledProcessError) as error:
            return _said(error)
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


def _run(program: Path, folder: Path, name: str, timeout: float) -> str:
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
        # Its sandbox and gofer are in other process groups: delete asks it to end them.
        subprocess.run(
            [*command[:3], "delete", "--force", name], check=False, capture_output=True, timeout=30
        )
        process.kill()
        process.wait()
        return f"no answer within {timeout:.0f} s"
    text = output.decode(errors="replace").strip()
    if process.returncode == 0 and "runsc version" in text:
        return ""
    return (
        text.splitlines()[-1][-300:]
        if text
        else f"it ended with exit code {process.returncode} and no word"
    )


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _said(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return (error.stderr or b"").decode(errors="replace").strip() or str(error)
    return str(error)
