"""Carrying images to a cluster's machines: what they lack of them, and no registry between.

An image goes as an OCI image layout, without the blobs that containerd holds there already, and
is imported into the namespace the kubelet uses.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bazaar.cluster.apply import each
from bazaar.cluster.description import Cluster, Node
from bazaar.model.record import record

if TYPE_CHECKING:
    from bazaar.host.remote import Connection

Progress = Callable[[str], None]
_CTR = "ctr -n k8s.io"
_FOLDER = "/var/lib/bazaar/images"
_SECONDS = 600.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._:/@-]{0,250}")
_LOOK = f"{_CTR} content ls -q && {_CTR} image ls | awk 'NR > 1 {{print $1, $3}}'"


@record
class Parcel:
    """An image that can be carried."""

    name: str  # by which pods name it
    digest: str  # its manifest's
    sizes: Mapping[str, int]  # of all its blobs, by digest
    write: Callable[[Path, frozenset[str]], object]  # makes a folder its layout, without some blobs


@record
class Carried:
    """What was done for one image."""

    name: str
    sent: Mapping[str, int]  # bytes, by machine; 0 where it was there


def load(
    cluster: Cluster, parcels: Sequence[Parcel], scratch: Path, progress: Progress
) -> list[Carried]:
    """Bring images to all machines that run pods. Raises ClusterError with those that failed.

    Layouts are made below ``scratch``.
    """
    sent: dict[str, dict[str, int]] = {parcel.name: {} for parcel in parcels}

    async def bring(node: Node) -> None:
        from bazaar.host import remote

        async with remote.connect(node.machine) as there:
            # All but what no image needs is there or comes: one after the other shares layers.
            for parcel in parcels:
                progress(f"{cluster.name}: {parcel.name} to {node.name}")
                sent[parcel.name][node.name] = await _bring(there, parcel, scratch)

    # Control planes run no pods where there are workers.
    asyncio.run(each(cluster, cluster.workers or cluster.members, bring))
    return [Carried(name, found) for name, found in sent.items()]


async def _bring(there: Connection, parcel: Parcel, scratch: Path) -> int:
    """Bring one image to one machine; the bytes of the blobs it lacked."""
    if not _NAME.fullmatch(parcel.name):
        raise ValueError(f"'{parcel.name}' cannot name an image")
    looked = await there.run(_LOOK, root=True, what="looking at its images")
    lines = looked.output.splitlines()
    held = frozenset(line for line in lines if line.startswith("sha256:")) & parcel.sizes.keys()
    if len(held) == len(parcel.sizes) and f"{parcel.name} {parcel.digest}" in lines:
        return 0
    target = f"{_FOLDER}/{parcel.digest.removeprefix('sha256:')}"
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".layout-") as temporary:
        layout = Path(temporary) / "layout"
        await asyncio.to_thread(parcel.write, layout, held)
        await there.send(layout, target, root=True, timeout=_SECONDS)
    place = shlex.quote(target)
    script = (
        f"set -e\ntar -C {place} -cf {place}.tar .\n"
        f"{_CTR} image import {place}.tar >/dev/null\nrm -rf {place} {place}.tar"
    )
    await there.run(script, root=True, timeout=_SECONDS, what=f"importing {parcel.name}")
    return sum(size for digest, size in parcel.sizes.items() if digest not in held)
