"""The bpftrace language, compiled to BPF and shown.

A text goes ``lexer → parser → check → lower``, then through ``bpf.passes`` and ``bpf.emit``;
``session`` loads and attaches it; ``read`` and ``show`` bring its values back. Callers use
``compile``, ``attach``, ``adopt`` and ``show``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bazaar.trace.pinned import adopt, pause, pin, remove, resume
    from bazaar.trace.program import Compiled, compile  # noqa: A004 - what it does
    from bazaar.trace.session import Losses, Output, RunFigures, Session, attach

_PLACES = {
    "Compiled": "program",
    "compile": "program",
    "Losses": "session",
    "Output": "session",
    "RunFigures": "session",
    "Session": "session",
    "attach": "session",
    "adopt": "pinned",
    "pause": "pinned",
    "pin": "pinned",
    "resume": "pinned",
    "remove": "pinned",
}
__all__ = [
    "Compiled", "Losses", "Output", "RunFigures", "Session", "adopt", "attach", "compile", "pause",
    "pin", "remove", "resume",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
