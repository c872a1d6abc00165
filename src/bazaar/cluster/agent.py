"""Bazaar on a cluster's machines: a copy of itself, for what is to be done at their kernels."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bazaar.cluster.facts import FOLDER
from bazaar.errors import ClusterError

if TYPE_CHECKING:
    from bazaar.host.remote import Connection

_LOOK = """
python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo lacking; exit 0; }
[ ! -e @THERE@/launch ] || echo there
"""


async def ready(there: Connection, folder: Path) -> str:
    """Have a copy of Bazaar on a machine; the command that is its own there.

    ``folder``, named by its content, holds ``launch`` and what that needs. Raises ClusterError
    where the machine has no Python for it.
    """
    target = f"{FOLDER}/agent/{folder.name}"
    look = _LOOK.replace("@THERE@", shlex.quote(target))
    said = (await there.run(look, root=True, what="looking for Bazaar")).output.strip()
    if said == "lacking":
        raise ClusterError(
            f"{there.machine}: it has no Python 3.11 or newer, which tracing there needs",
            hint="install it there: apt-get install python3",
        )
    if said != "there":
        await there.send(folder, target, root=True)
    return f"python3 -I {shlex.quote(target)}/launch"
