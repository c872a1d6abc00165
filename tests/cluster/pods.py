"""Pods for tests: an image of one static program, brought to machines, and what runs of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bazaar.cluster import binaries, extras, vault
from bazaar.host import machines, paths
from bazaar.up import cluster_life, cluster_request, clusters
from tests.host.conftest import need_machines

IMAGE = "bazaar.local/agnhost:1"
QUIET = str  # a progress callback that says nothing


@contextlib.contextmanager
def own_state(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder with a state and a key of its own; the machines made meanwhile go at its end."""
    need_machines()
    folder = factory.mktemp(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAZAAR_STATE", str(folder / "state"))
        patch.setenv(vault.KEY_FILE, str(folder / "key"))
        try:
            yield folder
        finally:
            machines.destroy(None, QUIET)


class Kubectl:
    """`kubectl` that speaks to one cluster."""

    def __init__(self, cluster: str, folder: Path) -> None:
        programs, _ = clusters.programs(cluster_request.known(cluster).version, QUIET)
        self.program = f"{programs.folder}/bin/kubectl"
        self.config = folder / "kubeconfig"
        self.config.write_text(clusters.kubeconfig(cluster))
        self.config.chmod(0o600)

    def __call__(self, *words: str, text: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [self.program, "--kubeconfig", str(self.config), "--request-timeout", "30s", *words],
            input=text,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self(
            "apply",
            "-f",
            "-",
            text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def reach(self, pod: str, place: str) -> None:
        """A pod connects to an address and port; a Service's rules may be a moment behind."""
        deadline = time.monotonic() + 15
        while True:
            try:
                said = self("exec", pod, "--", "/agnhost", "connect", "--timeout=5s", place)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
                continue
            assert said == ""
            return

    def wait_for(self, kind: str, condition: str, seconds: int = 60) -> None:
        self("wait", kind, f"--for={condition}", f"--timeout={seconds}s")


def bring(cluster: str, names: Sequence[str] | None = None) -> None:
    """Import the image on the cluster's local machines."""
    programs = binaries.conformance(binaries.VERSIONS[0], QUIET)
    archive = paths.state() / "agnhost.tar"
    if not archive.exists():
        content = extras.image(programs["agnhost"].read_bytes(), IMAGE, "/agnhost")
        archive.write_bytes(content)
    for one in machines.listing():
        if names is None or one.machine.name in names:
            command = ["ctr", "-n", "k8s.io", "image", "import", "-"]
            with archive.open("rb") as file:
                subprocess.run(
                    ssh(one.machine.name, *command), stdin=file, check=True, capture_output=True
                )


def ssh(name: str, *command: str) -> list[str]:
    """The words of an `ssh` to a local machine."""
    machine = next(one.machine for one in machines.listing() if one.machine.name == name)
    known = f"UserKnownHostsFile={machine.known_hosts}"
    place = f"{machine.user}@{machine.address}"
    return ["ssh", "-q", "-i", machine.key, "-o", known, place, *command]


def on(name: str, command: str, *, check: bool = True) -> str:
    """Run a shell command on a local machine."""
    done = subprocess.run(
        ssh(name, command), text=True, capture_output=True, check=False, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def pod(name: str, *args: str, node: str = "", runtime: str = "", **spec: Any) -> dict[str, Any]:
    """A pod of the image."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": list(args or ("netexec", "--http-port=8080")),
        "ports": [{"containerPort": 8080}],
    }
    body: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 1, **spec}
    if node:
        body["nodeName"] = node
    if runtime:
        body["runtimeClassName"] = runtime
    metadata = {"name": name, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def service(name: str, app: str) -> dict[str, Any]:
    """A Service in front of the pods with this label."""
    spec = {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def healthy(cluster: str, seconds: float = 30.0) -> bool:
    """Whether all is well with a cluster, within a while."""
    deadline = time.monotonic() + seconds
    while not cluster_life.status(cluster, QUIET).healthy:
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True
