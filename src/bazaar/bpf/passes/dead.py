"""Values nobody reads."""

from __future__ import annotations

from bazaar.bpf.flow import liveness, without_dead
from bazaar.bpf.passes.facts import Code


def drop_dead(code: Code) -> Code:
    """Drop what computes a value nobody reads."""
    return without_dead(code, liveness(code))
