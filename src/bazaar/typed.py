"""What annotations need of ``typing``, for the modules a container's start goes through.

``typing`` itself takes 4 ms to import, a tenth of what `bazaar run` does before its engine.
Type checkers see the real one; at run time its names stand for nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, cast
else:
    Any = object
    Protocol = object

    def cast(kind: Any, value: Any) -> Any:
        return value


__all__ = ["TYPE_CHECKING", "Any", "Protocol", "cast"]
