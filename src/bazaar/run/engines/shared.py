"""The engine `shared`: runc or crun, on the host's kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bazaar.errors import MissingError
from bazaar.host import cgroups, paths
from bazaar.run.engines import EngineStatus, Progress


def find() -> Path | None:
    """runc, else crun; the system's own folders first, since they need no PATH."""
    folders = os.pathsep.join(["/usr/sbin", "/usr/bin", os.environ.get("PATH", "")])
    for name in ("runc", "crun"):
        if path := shutil.which(name, path=folders):
            return Path(path)
    return None


class Shared:
    """Namespaces, capabilities and a seccomp filter are all that separates it from the host."""

    name = "shared"
    isolation = "the host's kernel; namespaces, capabilities and seccomp only"
    own_cgroups = True

    def status(self) -> EngineStatus:
        """What is there."""
        path = find()
        if path is None:
            return EngineStatus(
                self.name,
                self.isolation,
                None,
                "neither runc nor crun is installed",
                "apt-get install runc",
            )
        return EngineStatus(self.name, self.isolation, path)

    def ensure(self, progress: Progress) -> Path:
        """Its path; `bazaar doctor --fix` installs it, this does not."""
        path = find()
        if path is None:
            raise MissingError(
                "engine shared: neither runc nor crun is installed",
                hint="bazaar doctor --fix, or apt-get install runc",
            )
        return path

    def command(self, folder: Path, *, network: bool) -> list[str]:
        """The program and its global options."""
        root = str(paths.state() / "engines" / "shared")
        program = self.ensure(lambda _: None)
        return [
            str(program),
            *_groups(program),
            "--root",
            root,
            "--log",
            str(folder / "engine.log"),
            "--log-format=json",
        ]


def _groups(program: Path) -> list[str]:
    """The option to go without the control groups that cannot be made here."""
    if cgroups.complete():
        return []
    # runc then passes over hierarchies that refuse it, unless the bundle names a group.
    return ["--cgroup-manager=disabled"] if program.name == "crun" else ["--rootless=true"]
