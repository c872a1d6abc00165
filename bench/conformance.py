"""Kubernetes' own conformance tests on a cluster of one local machine.

Needs root. Which are run: those of the chosen group, [Conformance] all of them, without those that
are serial or disruptive. Images are made here of agnhost and Debian's packages, under the names the
tests ask for; nobody is certified by that. --write keeps the list in docs/conformance.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import report
from bazaar.model.record import replace
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
# Of the image that agnhost comes in.
TOOLS = ("curl", "bind9-dnsutils", "iproute2", "iputils-ping", "netcat-openbsd")
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
        "here of agnhost and Debian's packages; this certifies nothing.",
        "",
    ]
    lines += [f"- {one['State']}: {name_of(one)}" for one in sorted(found, key=name_of)]
    (ROOT / "docs/conformance.md").write_text("\n".join([*lines, ""]))


def bring(e2e: Path, agnhost: Path, folder: Path, progress: Progress) -> None:
    """Carry images to the machine under every name the tests ask for."""
    from bazaar.model.container import Image, ImageConfig
    from bazaar.run import images
    from bazaar.up import cluster_images

    progress("conformance: making images")
    base = images.ensure(f"deb://bookworm?packages={','.join(TOOLS)}", progress)
    program = folder / "agnhost"
    program.mkdir()
    shutil.copy(agnhost, program / "agnhost")
    listed = subprocess.run([e2e, "--list-images"], capture_output=True, text=True, check=True)
    wanted: dict[str, Image] = {}
    for name in (one for one in listed.stdout.split() if one.startswith("registry.k8s.io/")):
        if "/agnhost:" in name:
            layers: tuple[Path, ...] = (*base.layers, program)
            config = ImageConfig(entrypoint=("/agnhost",), command=("pause",))
        elif "/busybox:" in name:
            layers = (busybox(folder),)
            config = ImageConfig(command=("sh",))
        elif "/pause:" in name:
            layers = (program,)
            config = ImageConfig(entrypoint=("/agnhost", "pause"))
        else:
            continue
        config = replace(config, environment=(("PATH", "/bin:/usr/bin:/sbin:/usr/sbin"),))
        wanted[name] = Image(name, "", layers, config)
    cluster_images.bring("conformance", wanted, progress)


def busybox(folder: Path) -> Path:
    """A root of Debian's busybox and its names."""
    root = folder / "busybox"
    if root.exists():
        return root
    subprocess.run(
        ["apt-get", "-q", "download", "busybox-static"], cwd=folder, check=True, capture_output=True
    )
    archive = next(folder.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, folder / "unpacked"], check=True)
    for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    program = root / "bin/busybox"
    shutil.copy(next((folder / "unpacked").rglob("bin/busybox")), program)
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    for name in applets.stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("--group", choices=[*GROUPS], default="podless")
    options.add_argument(
        "--write", action="store_true", help="keep the list in docs/conformance.md"
    )
    chosen = options.parse_args()
    sys.exit(report.run(lambda step: measure(chosen.group, chosen.write, step), chosen))
