"""Whether there is such a program in a container, said before an engine says it its own way."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Sequence
from pathlib import Path

from bazaar.errors import EngineError
from bazaar.run import launch, rootfs
from bazaar.typed import Any


def problem(
    root: Path, name: str, search: str, directory: str, mounted: Sequence[str], image: str
) -> EngineError | None:
    """Why ``name`` cannot be executed in ``root``, with docker's exit codes; None: it can.

    ``search`` is its PATH, ``directory`` where it starts, ``mounted`` what is not judged.
    """
    found = rootfs.executable(root, name, search, directory, mounted)
    if not found.code:
        return None
    words = "not found in" if found.code == 127 else "is no program that can be executed in"
    hint = None
    if image.startswith("deb://") and found.code == 127 and "/" not in name:
        more = re.sub(r"packages=([^&]*)", rf"packages=\1,{name}", image)
        more = (
            more
            if "packages=" in image
            else f"{image}{'&' if '?' in image else '?'}packages={name}"
        )
        hint = f"the image has no such program; add it: {more}"
    error = EngineError(f"{name}: {words} {image}", hint=hint)
    error.exit_code = found.code
    return error


def missing(
    place: Path, name: str, environment: dict[str, str], directory: str | None
) -> EngineError | None:
    """Why the container of this folder has no such program, as far as its root tells.

    Raises where the root tells all: what is written inside gVisor lies in files of its own.
    """
    config, about = (launch.load(place, file) for file in ("config.json", "container.json"))
    if config is None or about is None:
        return None
    process: dict[str, Any] = config["process"]
    variables = dict(entry.partition("=")[::2] for entry in process["env"]) | environment
    error = problem(
        place / "rootfs",
        name,
        variables.get("PATH", ""),
        directory or process["cwd"],
        [mount["destination"] for mount in config["mounts"]],
        str(about.get("image", "")),
    )
    if error is not None and about.get("engine") != "gvisor":
        raise error
    return error


@contextlib.contextmanager
def instead(error: EngineError) -> Generator[None]:
    """Raise ``error`` where the engine fails inside, and drop what it wrote to stderr itself.

    What a program writes passes at once: only what begins as gVisor's complaint is held.
    """
    import threading

    complaint, held = b"executing processes for container", bytearray()
    real = os.dup(2)
    read, write = os.pipe2(os.O_CLOEXEC)
    os.dup2(write, 2)
    os.close(write)

    def carry() -> None:
        passing = False
        while data := os.read(read, 1 << 16):
            held.extend(data)
            passing = passing or not (held.startswith(complaint) or complaint.startswith(held))
            if passing:
                _write(real, held)

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    failed = False
    try:
        yield
    except EngineError:
        failed = True
        raise error from None
    finally:
        os.dup2(real, 2)  # the pipe's last end of ours closes
        thread.join(2.0)
        if not failed:
            _write(real, held)
        os.close(real)
        os.close(read)


def _write(sink: int, data: bytearray) -> None:
    with contextlib.suppress(OSError):  # nobody reads
        while data:
            del data[: os.write(sink, data)]
    data.clear()
