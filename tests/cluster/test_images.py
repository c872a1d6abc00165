"""Images by the names pods know them by, and what bad ones are told."""

from __future__ import annotations

import pytest

from bazaar.errors import MissingError
from bazaar.up import cluster_images
from tests.cluster.pods import QUIET

DIGEST = "sha256:0123456789abcdef" + "0" * 48


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("docker://grafana/grafana:12", "docker.io/grafana/grafana:12"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("localhost/x:1", "localhost/x:1"),
        ("ghcr.io/a/b/c:tag", "ghcr.io/a/b/c:tag"),
        (f"alpine@{DIGEST}", "bazaar.local/alpine-sha256-0123456789abcdef"),
        ("deb://bookworm?packages=a,b", "bazaar.local/deb-bookworm-packages-a-b:0123456789ab"),
        ("dir:/srv/My Root", "bazaar.local/dir-srv-my-root:0123456789ab"),
        ("oci:/x:y", "bazaar.local/oci-x-y:0123456789ab"),
    ],
)
def test_names(reference: str, name: str):
    assert cluster_images.name_of(reference, DIGEST).startswith(name)


def test_without_a_cluster(state):
    with pytest.raises(MissingError, match="there is no cluster"):
        cluster_images.load(None, ["deb://bookworm?packages=hello"], QUIET)
