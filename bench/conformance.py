"""Kubernetes' own conformance tests on a cluster of one local machine.

Needs root. Which are run: those of the chosen group, [Conformance] all of them, without those that
are serial or disruptive. Images are made here of agnhost, Debian's busybox and `pause`, under the
names the tests ask for; nobody is certified by that. --write keeps the list in docs/conformance.md.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import report
from report import ROOT, Figure, Progress

# By file of the tests' source: they need no pod.
PODLESS = (
    *("field_validation", "custom_resource_definition", "crd_watch", "apimachinery/watch"),
    *("aggregated_discovery", "apimachinery/discovery", "flowcontrol", "lease"),
    *("apimachinery/events", "instrumentation/events", "certificates", "subjectreviews"),
    *("controller_revision", "ingressclass", "network/ingress", "csi_node", "storageclass"),
)
# These need images that cannot be made of what is here.
PODS = (
    *("node/pods", "common/node/configmap", "common/node/secrets", "common/node/expansion"),
    *("common/node/containers", "common/node/downwardapi", "common/node/lifecycle_hook"),
    *("common/storage/configmap_volume", "common/storage/empty_dir", "common/storage/downwardapi"),
    *("common/storage/projected", "common/storage/secrets_volume", "network/service.go"),
    *("network/dns", "common/network/networking", "network/endpointslice", "apps/job"),
    *("apps/deployment", "apps/replica_set", "apps/rc", "apps/daemon_set", "node/runtimeclass"),
)
GROUPS = {"podless": PODLESS, "pods": PODS, "all": (*PODLESS, *PODS), "every": ()}
_SKIP = r"\[Serial\]|\[Disruptive\]|\[Slow\]"


def measure(group: str, write: bool, progress: Progress) -> list[Figure]:
    from bazaar.cluster import binaries, vault
    from bazaar.up import clusters
    from bazaar.up.cluster_request import Request

    version = binaries.VERSIONS[0]
    programs = binaries.conformance(version, progress)
    with tempfile.TemporaryDirectory(prefix="bazaar-bench-") as folder:
        os.environ.update({"BAZAAR_STATE": f"{folder}/state", vault.KEY_FILE: f"{folder}/key"})
        try:
            clusters.apply(Request(name="conformance", local=1), progress)
            bring(programs["e2e.test"], programs["agnhost"], Path(folder), progress)
            config = Path(folder, "kubeconfig")
            config.write_text(clusters.kubeconfig("conformance"))
            began = time.monotonic()
            found = tests(programs["e2e.test"], config, group, Path(folder), progress)
            took = time.monotonic() - began
        finally:
            clusters.reset("conformance", progress)
    counts = Counter(one["State"] for one in found)
    if write:
        keep(found, version, group)
    failed = [name_of(one) for one in found if one["State"] not in ("passed", "skipped")]
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return [
        Figure("conformance.run", len(found), "tests", note=f"group {group}, {took:.0f} s"),
        Figure("conformance.passed", counts["passed"], "tests"),
        Figure("conformance.failed", len(failed), "tests", goal="0", holds=not failed),
    ]


def tests(
    program: Path, config: Path, group: str, folder: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Run a group of the tests; what became of each that was run."""
    words = [
        str(program),
        f"--kubeconfig={config}",
        "--provider=skeleton",
        "--allowed-not-ready-nodes=-1",
        "--minStartupPods=-1",
        r"--ginkgo.focus=\[Conformance\]",
        f"--ginkgo.skip={_SKIP}",
        "--ginkgo.no-color",
        "--ginkgo.timeout=3h",
        f"--ginkgo.json-report={folder}/report.json",
        *(f"--ginkgo.focus-file={name}" for name in GROUPS[group]),
    ]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
        began = time.monotonic()
        while process.poll() is None:
            progress(f"conformance: running the group {group}, {time.monotonic() - began:.0f} s")
            time.sleep(5)
    path = folder / "report.json"
    if not path.exists():
        raise SystemExit(f"e2e.test: {(folder / 'log').read_text()[-2000:]}")
    suites = json.loads(path.read_text())
    specs = [spec for suite in suites for spec in suite["SpecReports"] or []]
    return [one for one in specs if one["LeafNodeType"] == "It" and one["State"] != "skipped"]


def name_of(spec: dict[str, Any]) -> str:
    return " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])


def keep(found: list[dict[str, Any]], version: str, group: str) -> None:
    """Write the list into the documentation."""
    counts = Counter(one["State"] for one in found)
    lines = [
        "# Conformance",
        "",
        f"Tests of Kubernetes {version}'s own conformance suite that were run on a cluster of one",
        f"local machine, by `bench/conformance.py --group {group} --write`: {len(found)} run,",
        f"{counts['passed']} passed, {len(found) - counts['passed']} failed. Images were made",
        "here of agnhost and busybox; this certifies nothing.",
        "",
    ]
    lines += [f"- {one['State']}: {name_of(one)}" for one in sorted(found, key=name_of)]
    (ROOT / "docs/conformance.md").write_text("\n".join([*lines, ""]))


def bring(e2e: Path, agnhost: Path, folder: Path, progress: Progress) -> None:
    """Import an image of agnhost and busybox under every name the tests ask for."""
    from bazaar.cluster import extras
    from bazaar.host import machines

    progress("conformance: making images")
    subprocess.run(
        ["apt-get", "-q", "download", "busybox-static"], cwd=folder, check=True, capture_output=True
    )
    archive = next(folder.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, folder / "busybox"], check=True)
    busybox = next((folder / "busybox").rglob("bin/busybox"))
    content = layer(agnhost.read_bytes(), busybox)
    listed = subprocess.run([e2e, "--list-images"], capture_output=True, text=True, check=True)
    names = [one for one in listed.stdout.split() if one.startswith("registry.k8s.io/")]
    machine = machines.listing()[0].machine
    known = f"UserKnownHostsFile={machine.known_hosts}"
    ssh = ["ssh", "-q", "-i", machine.key, "-o", known, f"root@{machine.address}"]
    for name in names:
        if "/agnhost:" in name:
            config: dict[str, object] = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}
        elif "/busybox:" in name:
            config = {"Cmd": ["sh"]}
        elif "/pause:" in name:
            config = {"Entrypoint": ["/agnhost", "pause"]}
        else:
            continue
        image = extras.image_of(content, name, {**config, "Env": ["PATH=/bin:/usr/bin:/sbin"]})
        command = [*ssh, "ctr", "-n", "k8s.io", "image", "import", "-"]
        subprocess.run(command, input=image, check=True, capture_output=True)


def layer(agnhost: bytes, busybox: Path) -> bytes:
    """One root for all: agnhost and a shell with its tools."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, content: bytes = b"", mode: int = 0o755, **more: Any) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            for key, value in more.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))

        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            add(folder, mode=mode, type=tarfile.DIRTYPE)
        add("agnhost", agnhost)
        add("bin/busybox", busybox.read_bytes())
        for name in applets.stdout.split():
            if name != "busybox":
                add(f"bin/{name}", mode=0o777, type=tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        add("etc/group", b"root:x:0:\n", 0o644)
    return buffer.getvalue()


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("--group", choices=[*GROUPS], default="podless")
    options.add_argument(
        "--write", action="store_true", help="keep the list in docs/conformance.md"
    )
    chosen = options.parse_args()
    sys.exit(report.run(lambda step: measure(chosen.group, chosen.write, step), chosen))
