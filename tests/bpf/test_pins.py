"""A pin gives back what was pinned, and nothing else under its name."""

from __future__ import annotations

import os

import pytest

from bazaar.bpf import links, maps, pins, programs
from bazaar.bpf.programs import ProgramType
from bazaar.errors import KernelError
from tests.bpf import kernel
from tests.bpf.kernel import Counter

OPENERS = {"map": maps.open_pinned, "prog": programs.open_pinned, "link": links.open_pinned}


@kernel.root
def test_a_pin_of_another_kind_is_refused() -> None:
    folder = f"{pins.root()}/{kernel.unique()}"
    try:
        with Counter(ProgramType.TRACEPOINT) as counter:
            counter.map.pin(f"{folder}/map")
            counter.program.pin(f"{folder}/prog")
            with links.tracepoint(counter.program, "syscalls:sys_enter_getppid") as link:
                link.pin(f"{folder}/link")
        before = len(os.listdir("/proc/self/fd"))
        for pinned in OPENERS:
            for kind, opener in OPENERS.items():
                if kind == pinned:
                    opener(f"{folder}/{pinned}").close()
                    continue
                with pytest.raises(KernelError, match=f"it is a {pinned}, not a {kind}"):
                    opener(f"{folder}/{pinned}")
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        pins.remove_all(folder)
