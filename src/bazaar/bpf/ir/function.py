"""A whole program, and instructions as text."""

from __future__ import annotations

from bazaar.bpf.ir.instructions import Label, Node
from bazaar.bpf.ir.operands import Reg
from bazaar.model.record import names, record


@record
class Function:
    """One program. ``context`` holds the context pointer at entry; ``scratch`` is how many
    bytes of per-CPU scratch (map ``scratch_name``) its prologue looks up, 0 for none."""

    name: str
    context: Reg
    code: tuple[Node, ...]
    scratch: int = 0
    scratch_name: str = ""

    def __repr__(self) -> str:
        lines = [f"{self.name}({self.context!r}):"]
        lines += [show(node) for node in self.code]
        return "\n".join(lines)


def show(node: Node) -> str:
    """One instruction as text, for people and golden files."""
    if isinstance(node, Label):
        return f"{node.name}:"
    shown = [
        f"{name}={value}" if name in {"op", "size", "signed", "to"} else repr(value)
        for name in names(node)
        if name not in {"line", "dst"} and (value := getattr(node, name)) is not None
    ]
    dst = node.defines()
    start = f"{dst!r} = " if dst else ""
    return f"  {start}{type(node).__name__.lower()} " + ", ".join(shown)
