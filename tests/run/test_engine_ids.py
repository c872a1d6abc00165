"""What the engine calls a container is never the beginning of what it calls another."""

from __future__ import annotations

import os
import uuid

from bazaar.host import paths
from bazaar.run import containers, launch


def test_a_container_whose_id_begins_anothers_leaves_that_one_alone(make, engine):
    # runsc takes a beginning for the whole id where only one container begins so.
    name = f"t{os.getpid()}-{uuid.uuid4().hex[:6]}"
    longer = make("/bin/sh", "-c", "sleep 60", engine=engine, name=f"{name}.2")
    shorter = make("/bin/sh", "-c", "exit 4", engine=engine, name=name)
    containers.start(longer)
    for _ in range(2):  # the second start finds nothing of the first
        containers.start(shorter)
        assert containers.wait(shorter.id, 20) == 4
        asked = launch.read(paths.containers() / shorter.id)
        containers.remove(shorter.id)
        launch.settle(asked, parent=False)  # as whoever comes a second time does
    assert containers.state(longer.id).status == "running"
    assert containers.execute(longer.id, ("/bin/sh", "-c", "exit 5")) == 5
    containers.remove(longer.id, force=True, timeout=1)
    left = list((paths.state() / "engines" / engine).glob(f"*{name}*"))
    assert left == []
