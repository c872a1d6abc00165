"""Images of this machine for clusters: packed here, carried to their machines."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

from bazaar.cluster import images as parcels
from bazaar.cluster import store
from bazaar.model.container import Image
from bazaar.model.record import record, replace
from bazaar.run import images
from bazaar.run.images import export
from bazaar.up import cluster_request

Progress = Callable[[str], None]


@record
class Loaded:
    """An image that a cluster's machines have."""

    reference: str
    name: str  # by which pods name it
    sent: Mapping[str, int]  # bytes, by machine


def load(name: str | None, references: Sequence[str], progress: Progress) -> list[Loaded]:
    """Make or get images here, and carry to a cluster's machines what they lack of them.

    Raises ImageError, and ClusterError with the machines that failed.
    """
    chosen = store.the_one(name)
    wanted = list(dict.fromkeys(references))
    here = {one: images.ensure(one, progress) for one in wanted}
    return carry(chosen, pack(here, progress), progress)


def pack(wanted: Mapping[str, Image], progress: Progress) -> dict[str, export.Exported]:
    """Make images, by their references, ready to be carried, by the names that pods use."""
    found = {reference: export.export(one, progress) for reference, one in wanted.items()}
    return {
        reference: replace(one, name=name_of(one.name, one.manifest.digest))
        for reference, one in found.items()
    }


def carry(chosen: str, packed: Mapping[str, export.Exported], progress: Progress) -> list[Loaded]:
    """Bring packed images to a cluster's machines. Raises ClusterError with those that failed."""
    carried = _carry(chosen, list(packed.values()), progress)
    return [Loaded(wish, one.name, one.sent) for wish, one in zip(packed, carried, strict=True)]


def bring(chosen: str, wanted: Mapping[str, Image], progress: Progress) -> None:
    """Carry images to a cluster's machines, each by the name it is to have there."""
    packed = [replace(export.export(one, progress), name=name) for name, one in wanted.items()]
    _carry(chosen, packed, progress)


def _carry(
    chosen: str, packed: Sequence[export.Exported], progress: Progress
) -> list[parcels.Carried]:
    cluster = cluster_request.known(chosen)
    made = [
        parcels.Parcel(
            one.name,
            one.manifest.digest,
            {blob.digest: blob.size for blob in one.blobs},
            functools.partial(export.write, one),
        )
        for one in packed
    ]
    return parcels.load(cluster, made, export.folder(), progress)


def name_of(reference: str, digest: str) -> str:
    """By which name pods know an image whose manifest has this digest.

    A registry's keeps its own, in full, as the kubelet reads it; any other gets one that changes
    with its content, so that pods do, too.
    """
    plain = reference.removeprefix("docker://")
    if "@" not in plain and not plain.startswith(("deb://", "oci:", "dir:")):
        host, slash, _ = plain.partition("/")
        if not (slash and (host == "localhost" or "." in host or ":" in host)):
            plain = f"docker.io/{plain}" if slash else f"docker.io/library/{plain}"
        return plain if ":" in plain.rpartition("/")[2] else f"{plain}:latest"
    words = re.sub(r"[^a-z0-9]+", "-", plain.lower())[:60].strip("-")
    return f"bazaar.local/{words}:{digest.removeprefix('sha256:')[:12]}"
