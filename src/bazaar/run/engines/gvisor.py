"""The engine `gvisor`: runsc, an application kernel written for untrusted code.

A runsc is judged by running one with a network, never by its version: releases differ in which
host kernels they get on with. What was proved, and what the program refused, is remembered by its
and the kernel's identity, so that later runs cost one look at a file; that there was no answer, or
no room, is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from bazaar.errors import BazaarError, MissingError
from bazaar.host import commands, paths
from bazaar.run.engines import EngineStatus, Progress


def candidates() -> Iterator[Path]:
    """Every runsc on this machine, the user's own before ours."""
    if chosen := os.environ.get("BAZAAR_RUNSC"):
        yield Path(chosen)
        return
    if installed := commands.which("runsc"):
        yield Path(installed)
    folder = paths.cache() / "bin"
    if folder.is_dir():
        yield from sorted(folder.glob("runsc-*"), key=lambda path: -path.stat().st_mtime)


def proved(program: Path) -> str | None:
    """What was found when this program was tried on this kernel: "" works, else why not.

    None: it was not tried yet, or what came of it may pass.
    """
    try:
        found = json.loads(_record(program).read_text())
        problem = str(found["problem"])
        return problem if not problem or found["refused"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(program: Path) -> Path:
    info = program.stat()
    key = f"{info.st_dev}-{info.st_ino}-{info.st_size}-{info.st_mtime_ns}-{os.uname().release}"
    return paths.cache() / "bin" / "proofs" / f"{key}.json"


def prove(program: Path) -> str:
    """Run ``program`` with a network in a namespace made for it; "" when it works, else why not."""
    known = proved(program)
    if known is not None:
        return known
    from bazaar.host.files import write_json
    from bazaar.run.engines import proof

    found = proof.run_with_network(program)
    if found.refused or not found.problem:
        value = {"program": str(program), "problem": found.problem, "refused": found.refused}
        write_json(_record(program), value, 0o644)
    return found.problem


class GVisor:
    """A kernel of its own in user space, reached by no system call of the container."""

    name = "gvisor"
    isolation = "a kernel of its own (gVisor), made for untrusted code"
    own_cgroups = False

    def status(self) -> EngineStatus:
        """What is there: the first runsc that works, else what ails the last."""
        problem, hint = "no runsc is installed", "bazaar doctor --fix gets or builds one"
        for program in candidates():
            try:
                found = prove(program)
            except (OSError, BazaarError) as error:
                found = str(error)
            if not found:
                return EngineStatus(self.name, self.isolation, program)
            problem = f"{program} does not work here: {found}"
        return EngineStatus(self.name, self.isolation, None, problem, hint)

    def ensure(self, progress: Progress) -> Path:
        """A runsc that works: installed or cached, else gVisor's release, else built."""
        for program in candidates():
            if program.exists() and not prove(program):
                return program
        if os.environ.get("BAZAAR_RUNSC"):
            raise MissingError(f"{self.status().problem}", hint="BAZAAR_RUNSC names it; unset it")
        from bazaar.run.engines import acquire

        program = acquire.get(progress)
        if problem := prove(program):
            raise MissingError(f"{program} does not work here: {problem}")
        return program

    def command(self, folder: Path, *, network: bool) -> list[str]:
        """The program and its global options: files that are written go to ``folder``'s disk."""
        return [
            str(self.ensure(lambda _: None)),
            "--root",
            str(paths.state() / "engines" / "gvisor"),
            "--ignore-cgroups",
            "--platform=systrap",
            f"--network={'sandbox' if network else 'none'}",
            f"--overlay2=root:dir={folder}",
            "--host-settings=ignore",
            "--log",
            str(folder / "engine.log"),
            "--log-format=json",
        ]
