"""tracefs and bpffs are mounted where they are not; tried in a mount namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.bpf import kernel

SCRIPT = """
import json, os, subprocess
from bazaar.bpf import filesystems, pins
from bazaar.bpf.maps import MapSpec, MapType, create, open_pinned
for kind in ("tracefs", "bpf"):
    for place in filesystems.mounted(kind):
        subprocess.run(["umount", "-l", place], check=True)
before = filesystems.mounted("tracefs") + filesystems.mounted("bpf")
with create(MapSpec("x", MapType.ARRAY, 4, 4, 1)) as table:
    table.pin(pins.root() + "/x")
open_pinned(pins.root() + "/x").close()
print(json.dumps([before, filesystems.tracefs(), filesystems.bpffs(),
                  os.path.isdir(filesystems.tracefs() + "/events/sched")]))
"""


@kernel.root
@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare (util-linux) is not installed")
def test_they_are_mounted_when_needed() -> None:
    command = ["unshare", "--mount", sys.executable, "-c", SCRIPT]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == [[], "/sys/kernel/tracing", "/sys/fs/bpf", True]
