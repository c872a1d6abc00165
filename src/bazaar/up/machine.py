"""Whether this machine can be what a bazaar asks of it, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable

from bazaar.errors import Problem, SpecError
from bazaar.spec.resolved import ResolvedBazaar
from bazaar.up import doctor


def refuse_other_providers(wanted: ResolvedBazaar) -> None:
    """Raises SpecError for sites that are not on this machine: later versions order them."""
    problems = [
        Problem(
            f"'{site.provider}' sites cannot be made yet; this version makes 'local' ones",
            path=f"sites.{site.name}.provider",
        )
        for site in wanted.sites
        if site.provider != "local"
    ]
    if problems:
        raise SpecError(problems)


def prepare(wanted: ResolvedBazaar, progress: Callable[[str], None]) -> list[str]:
    """Get what the bazaar needs of this machine; what is missing still, in sentences.

    Raises MissingError when services cannot run at all.
    """
    left = doctor.ensure(doctor.for_bazaar(wanted), progress)
    return [
        f"{need.name} ({need.purpose}): {need.found or 'not there'}; {need.remedy}" for need in left
    ]
