"""What a keeper holds, and lets go of when it ends."""

from __future__ import annotations

import os

from bazaar.model.site import Health
from bazaar.up.keeper import Keeper, Replica


def descriptors() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += "eventfd" in os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def test_one_that_ended_holds_no_descriptor(state):
    before = descriptors()
    for number in range(3):
        name = f"k{os.getpid()}.web.u.{number}"
        replica = Replica(
            *("k", "web", "u", number, 1, name, "shared", "10.1.1.10"), None, Health("none"), ""
        )
        keeper = Keeper(replica, lambda keeper: None)
        keeper.start()  # it has no container, so its thread ends by itself
        keeper.stop(grace=0)
        keeper.wake()  # as the supervisor's own end may come later
    assert descriptors() == before
