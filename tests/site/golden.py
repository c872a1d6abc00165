"""Expected files: compared, or written anew with BAZAAR_GOLDEN=write."""

import os
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"


def check(name: str, text: str, layer: str = "site") -> None:
    file = GOLDEN / layer / name
    if os.environ.get("BAZAAR_GOLDEN") == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
