"""The programs a cluster is made of, as one read-only folder for each version of Kubernetes.

parts     which programs there are, of which version, and where they come from: a table
sources   mirrors and the projects' own releases
sets      one part after the other into the cache, and the folder of a whole set
"""

from __future__ import annotations

from bazaar.cluster.binaries.parts import NAMES, VERSIONS
from bazaar.cluster.binaries.sets import (
    BinarySet,
    addons,
    cached,
    conformance,
    containerd,
    get,
)

__all__ = ["NAMES", "VERSIONS", "BinarySet", "addons", "cached", "conformance", "containerd", "get"]
