"""The reference's generated pages are as the code would write them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bazaar.spec import loads

ROOT = Path(__file__).parents[2]


def test_the_pages_are_up_to_date():
    finished = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert finished.returncode == 0, finished.stderr + "run docs/generate"


def test_the_examples_of_the_page_are_right():
    text = (ROOT / "docs" / "reference" / "spec.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        part = block.split(":")[0]
        if part in ("health", "restart"):
            block = f"services: {{web: {{stand: apache, {block.strip()}}}}}"
        if part == "proxy":
            block = f"sites: {{a: {{machines: 1, cluster: {{{block.strip()}}}}}}}"
        loads(f"bazaar: x\n{block}\n")
