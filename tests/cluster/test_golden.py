"""All files of machines that hold no key, as they are: three control planes and two workers.

BAZAAR_GOLDEN=write writes them again; what changed is then seen in the diff.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bazaar.cluster import addons
from bazaar.cluster.description import Cluster
from bazaar.cluster.desired import desired
from tests.cluster.conftest import EXTRAS, cluster, context

FOLDER = Path(__file__).parent.parent / "golden" / "cluster"
OPTIONS: dict[str, Any] = {
    "registry_mirrors": {
        "docker.io": ("http://10.1.0.9:5000",),
        "_default": ("https://a.example", "https://b.example"),
    },
    "proxy": {"http": "http://10.1.0.9:3128", "no_proxy": ".example.org,10.9.0.0/16"},
    "feature_gates": {"SomeGate": True, "Other": False},
    "extra_args": {"kubelet": {"v": "4"}, "kube-apiserver": {"profiling": "true"}},
    "endpoint": "api.example.org",
}
SECRET = ("/etc/kubernetes/pki", "/etc/kubernetes/encryption.yaml", "/var/lib/bazaar-node/identity")


def shown(of: Cluster, name: str, way: str = "routes") -> str:
    """A machine's files in one text, without those that hold keys."""
    node = next(one for one in of.nodes if one.name == name)
    lines: list[str] = []
    for path, file in sorted(desired(context(of, node, way=way)).files.items()):
        if not path.startswith(SECRET) and b"client-key-data" not in file.content:
            lines.append(f"==> {path} {file.mode:o} <==\n{file.content.decode()}\n")
    return "".join(lines)


def compare(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("BAZAAR_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", ["cp1", "w2"])
def test_a_machine_with_every_default(name: str):
    compare(f"{name}.txt", shown(cluster(3, 2), name))


def test_a_machine_with_every_option():
    plain = shown(cluster(3, 2), "cp2").split("==> ")
    text = shown(cluster(3, 2, **OPTIONS), "cp2").split("==> ")
    compare("cp2-options.txt", "".join(f"==> {one}" for one in text if one and one not in plain))


def test_what_the_api_is_told():
    compare(
        "manifests.yaml", addons.document(cluster(3, 2), addons.Given(True, EXTRAS.has, "CA"))[0]
    )
