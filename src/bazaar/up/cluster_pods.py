"""Replicas that are pods: what they wrote, and commands inside them, by the cluster's kubectl."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bazaar.errors import BazaarError, ClusterError, UsageError
from bazaar.model.container import ContainerState
from bazaar.run.logs import LogLine
from bazaar.up import client, cluster_sites

Progress = Callable[[str], None]


def environment(cluster: str, progress: Progress) -> dict[str, str]:
    """Ours, with kubectl on its path that speaks to a cluster as who administers it."""
    from bazaar.cluster import binaries
    from bazaar.up import cluster_request, clusters

    programs = binaries.get(cluster_request.known(cluster).version, progress).folder
    # Nothing of it is left on a disk, and nobody else may read it.
    descriptor = os.memfd_create("kubeconfig")
    os.write(descriptor, clusters.kubeconfig(cluster).encode())
    return {
        **os.environ,
        "KUBECONFIG": f"/proc/{os.getpid()}/fd/{descriptor}",
        "PATH": f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}",
    }


def listing(bazaar: str) -> list[ContainerState]:
    """A bazaar's pods, as containers whose label ``cluster`` says where they are."""
    try:
        known = cluster_sites.stored(bazaar)
        services: list[dict[str, Any]] = client.call(bazaar, "status")["services"] if known else []
    except BazaarError:
        return []  # of its pods nobody tells; its containers are told without a supervisor
    return [
        ContainerState(
            row["container"],
            row["id"],
            row["engine"],
            "running",
            labels=(
                ("bazaar", bazaar),
                ("service", service["name"]),
                ("cluster", known[row["site"]].access.cluster),
            ),
        )
        for service in services
        for row in service["replicas"]
        if row["site"] in known
    ]


def is_pod(container: ContainerState) -> bool:
    """Whether it is on a cluster."""
    return "cluster" in dict(container.labels)


def logs(
    pod: ContainerState, *, follow: bool, since: float | None, tail: int | None
) -> Iterator[LogLine]:
    """What a pod wrote; a cluster does not tell on which stream."""
    words = ["logs", pod.id, "--timestamps"]
    if follow:
        words.append("--follow")
    if tail is not None:
        words.append(f"--tail={tail}")
    if since is not None:
        words.append(f"--since-time={datetime.fromtimestamp(since, UTC).isoformat()}")
    command, environment = _kubectl(pod, words)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                stamp, _, text = line.partition(b" ")
                yield LogLine(_seconds(stamp), "stdout", text.removesuffix(b"\n"))
        finally:
            process.terminate()
    if not follow and process.returncode > 0:
        raise ClusterError(f"{pod.name}: its log cannot be had", hint="kubectl says why, above")


def _seconds(stamp: bytes) -> float:
    try:
        return datetime.fromisoformat(stamp.decode()).timestamp()
    except ValueError:
        return 0.0


def execute(pod: ContainerState, words: Sequence[str], *, tty: bool, interactive: bool) -> int:
    """Run a command inside a pod; its exit code."""
    options = ["--stdin"] * interactive + ["--tty"] * tty
    command, environment = _kubectl(pod, ["exec", *options, pod.id, "--", *words])
    code = subprocess.run(command, env=environment, check=False).returncode
    return code if code >= 0 else 128 - code


def refuse(**said: object) -> None:
    """Raises UsageError for options of `exec` that a cluster has nothing for."""
    if given := [name for name, value in said.items() if value]:
        raise UsageError(
            f"--{given[0]} is not there for a replica on a cluster",
            hint="say it inside: `exec NAME sh -c '…'`",
        )


def _kubectl(pod: ContainerState, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    about = dict(pod.labels)
    found = environment(about["cluster"], lambda text: None)
    return ["kubectl", "--namespace", about["bazaar"], *words], found
