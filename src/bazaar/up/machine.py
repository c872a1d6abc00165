"""Whether this machine can be what a bazaar asks of it, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.spec.resolved import ResolvedBazaar
from bazaar.up import doctor


def prepare(wanted: ResolvedBazaar, progress: Callable[[str], None]) -> list[str]:
    """Get what the bazaar needs of this machine; what is missing still, in sentences.

    Raises MissingError when services cannot run at all.
    """
    left = doctor.ensure(doctor.for_bazaar(wanted), progress)
    return [
        f"{need.name} ({need.purpose}): {need.found or 'not there'}; {need.remedy}" for need in left
    ]
