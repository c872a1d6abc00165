"""New authorities for a cluster that lives: trusted beside the old, then used, then alone.

Pure, on what `pki.renewed` returns. After each turn an apply brings it to all machines before the
next may be made:

    ""       one authority each; a turn makes the next ones, which are trusted from then on
    "trust"  a turn has everything issued by the new; the old are trusted still
    "issue"  a turn drops the old
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bazaar.cluster import pki

WORDS = {
    "": "trusting the new authorities alone",
    "trust": "trusting new authorities beside the old",
    "issue": "issuing everything by the new authorities",
}


def stage(keys: Mapping[str, Any]) -> str:
    """How far a rotation has come."""
    authorities = keys["authorities"].values()
    if any("next" in one for one in authorities):
        return "trust"
    return "issue" if any("previous" in one for one in authorities) else ""


def turned(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys one step further; `pki.renewed` issues what is missing then."""
    now = stage(keys)
    authorities: dict[str, Any] = {}
    for name, held in keys["authorities"].items():
        one = {key: value for key, value in held.items() if key not in ("next", "previous")}
        if now == "":
            one["next"] = pki.authority(pki.AUTHORITIES[name])
        elif now == "trust":
            one = {**held["next"], "previous": held["certificate"]}
        authorities[name] = one
    pairs: Mapping[str, Any] = {} if now == "trust" else keys["pairs"]
    return {**keys, "authorities": authorities, "pairs": pairs}
