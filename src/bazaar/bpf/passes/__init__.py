"""The passes over the IR, a file each and in one list; `optimise` runs it until nothing changes.

Each takes a list of instructions and gives a new one that means the same. With the environment
variable `BAZAAR_BPF_CHECK` set, `bazaar.bpf.legal` checks the code after each of them.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable

from bazaar.bpf.ir import Function
from bazaar.bpf.passes.addresses import addresses
from bazaar.bpf.passes.comparisons import fuse
from bazaar.bpf.passes.constants import fold
from bazaar.bpf.passes.copies import propagate
from bazaar.bpf.passes.dead import drop_dead
from bazaar.bpf.passes.extensions import narrow
from bazaar.bpf.passes.facts import Code
from bazaar.bpf.passes.jumps import thread
from bazaar.bpf.passes.sharing import share
from bazaar.bpf.passes.strength import reduce_strength
from bazaar.model.record import replace

MAX_ROUNDS = 8

PASSES: tuple[tuple[str, Callable[[Code], Code]], ...] = (
    ("propagate copies and constants", propagate),
    ("fold constants", fold),
    ("reduce strength", reduce_strength),
    ("drop extensions", narrow),
    ("fold addresses", addresses),
    ("share computations", share),
    ("fuse compare and branch", fuse),
    ("thread jumps", thread),
    ("drop dead code", drop_dead),
)
"""Every pass by its name, in the order they run."""


def optimise(function: Function, *, check: bool | None = None) -> Function:
    """Run all passes until none changes anything.

    ``check`` (default: environment variable `BAZAAR_BPF_CHECK`) checks legality after each.
    """
    if check is None:
        check = bool(os.environ.get("BAZAAR_BPF_CHECK"))
    code: Code = list(function.code)
    if check:
        _check(function, code, "lowering")
    for _ in range(MAX_ROUNDS):
        before = code
        for name, run in PASSES:
            code = run(code)
            if check:
                _check(function, code, name)
        if len(code) == len(before) and all(map(operator.is_, code, before)):
            break
    return replace(function, code=tuple(code))


def _check(function: Function, code: Code, name: str) -> None:
    from bazaar.bpf.legal import check

    check(replace(function, code=tuple(code)), after=name)
