"""Values that a description names and does not hold."""

from __future__ import annotations

import os
from pathlib import Path


def read(kind: str, source: str) -> str:
    """A secret of a file or of our environment. Raises ValueError with why it is absent."""
    if kind == "env":
        if source not in os.environ:
            raise ValueError(
                f"the environment has no variable {source}; export it and run the same again"
            )
        return os.environ[source]
    try:
        return Path(source).read_text().rstrip("\n")
    except OSError as error:
        raise ValueError(f"cannot read {source}: {error.strerror}; put the secret there") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 text (byte {error.start})") from None
