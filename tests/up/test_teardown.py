"""Taking away what is left, on a machine that lacks what it was made with."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.bpf import kernel

# In a mount namespace of its own, in which no bpffs can be had.
WITHOUT_BPFFS = """
import subprocess
from bazaar.bpf import filesystems
for place in filesystems.mounted("bpf"):
    subprocess.run(["umount", "-l", place], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", "/sys/fs"], check=True)
from bazaar.bpf import pins
from bazaar.errors import KernelError
try:
    pins.root()
except KernelError as error:
    print(error)
from bazaar.spec.resolved import ResolvedBazaar, ResolvedProbe
from bazaar.shield import pinned
from bazaar.up import observers, teardown
watching = observers.Observers("gone")
watching.apply(ResolvedBazaar("gone", probes=(ResolvedProbe("p", "BEGIN { exit(); }"),)), print)
assert watching.watches["p"].problem
watching.apply(ResolvedBazaar("gone"), print)
teardown.remove_observers("gone")
print(pinned.names(), watching.watches, filesystems.mounted("bpf"))
"""


@kernel.root
@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare (util-linux) is not installed")
def test_where_no_bpffs_can_be_had_nothing_is_pinned(state):
    command = ["unshare", "--mount", sys.executable, "-c", WITHOUT_BPFFS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert "bpf cannot be mounted" in first
    assert last == "[] {} []"
