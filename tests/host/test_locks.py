"""Locks of the machine's: one holder at a time, and nothing left of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Reading and writing apart, so that two holders at once would lose a count.
COUNT = """
import sys
from pathlib import Path
from bazaar.host import paths
from bazaar.host import locks

folder = Path(sys.argv[1])
paths.locks = lambda: folder / "locks"
for _ in range(200):
    with locks.of_machine("count"):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""


def test_one_holder_at_a_time_and_no_file_afterwards(tmp_path: Path):
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    children = [subprocess.Popen(command) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert (tmp_path / "number").read_text() == "800"
    assert not (tmp_path / "locks").exists()
