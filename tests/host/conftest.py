"""Local machines for tests: two of them, in a state folder of their own, for a whole module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from bazaar.host import apt_sources, cgroups, machines
from bazaar.host.machines import LocalMachine, base

NEEDED = ("systemd-nspawn", "mmdebstrap", "nft", "ip")


def need_machines() -> None:
    """Skip where local machines cannot be made."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        pytest.skip(f"needs root and {', '.join(lacking) or 'nothing else'}")
    if not cgroups.complete():
        pytest.skip("control groups are read-only here")
    if not apt_sources.for_suite(base.SUITE):
        pytest.skip(f"no apt source of {base.SUITE}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LocalMachine]]:
    """m1 and m2; gone afterwards."""
    need_machines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAZAAR_STATE", str(tmp_path_factory.mktemp("machines") / "state"))
        try:
            yield machines.create(2, lambda _: None)
        finally:
            machines.destroy(None, lambda _: None)
