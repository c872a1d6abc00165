"""Packets: bounds checks and views of headers."""

from __future__ import annotations

import ast
from typing import cast

from bazaar.bpf.ir import Memory, Reg
from bazaar.bpf.python import kernel
from bazaar.bpf.python.contexts import Context
from bazaar.bpf.python.storage import Storage
from bazaar.bpf.python.types import StructType
from bazaar.bpf.python.values import Constant, Number, View

FAR = 0x7FFF  # the verifier follows packet pointers up to 64 KiB


class Packets(Storage):
    """Compiles ``packet(…)``."""

    def packet(self, node: ast.Call) -> View:
        short, end = self.b.label("short"), self.b.label("end")
        result = self.b.register("packet")
        view = self.packet_at(node, short)
        self.b.move(cast(Reg, view.memory.base), result)
        self.b.jump(end)
        self.b.place(short)
        self.b.move(0, result)
        self.b.place(end)
        return View(view.layout, Memory(result), nullable=True)

    def packet_or(self, node: ast.expr, null: str) -> bool:
        named = node if isinstance(node, ast.NamedExpr) else None
        called = named.value if named is not None else node
        if not (isinstance(called, ast.Call) and self.is_packet(called.func)):
            return False
        view = self.packet_at(called, null)
        if named is not None:
            self.assign(named.target, view)
        return True

    def is_packet(self, node: ast.expr) -> bool:
        """Whether the name means our function `packet`."""
        if isinstance(node, ast.Attribute):
            return node.attr == "packet" and self.expression(node) == Constant(kernel.packet)
        return isinstance(node, ast.Name) and (
            node.id not in self.frame.local
            and self.frame.source.names.get(node.id) is kernel.packet
        )

    def packet_at(self, node: ast.Call, short: str) -> View:
        """Compare with the packet's end, and go to the label when it is not long enough."""
        named = {word.arg: word.value for word in node.keywords}
        given = [*node.args, *named.values()]
        if not 2 <= len(given) <= 3 or set(named) - {"offset"}:
            raise self.error(node, "packet(context, header, offset) is wanted")
        data, end = self.packet_bounds(node, given[0])
        layout = self.layout(given[1])
        offset = self.number(given[2]).operand if len(given) > 2 else 0
        if isinstance(offset, Reg):
            self.b.branch("gt", offset, FAR, short)
        elif not 0 <= offset <= FAR:
            raise self.error(given[2], f"offset {offset} is not within 0 and {FAR}")
        start = self.b.binary("add", data, offset)
        self.b.branch("gt", self.b.binary("add", start, layout.size), end, short)
        return View(layout, Memory(start))

    def packet_bounds(self, node: ast.Call, context: ast.expr) -> tuple[Reg, Reg]:
        value = self.expression(context)
        if isinstance(value, View) and isinstance(value.layout, StructType):
            made = value.layout.made
            if issubclass(made, Context) and made.packet is not None:
                base, (data, end) = value.memory, made.packet
                return self.b.load(base, data, 4), self.b.load(base, end, 4)
        raise self.error(
            node, "the first argument must be the context of a program that has packets"
        )

    def packet_length(self, node: ast.Call) -> Number:
        data, end = self.packet_bounds(node, self.arguments(node, 1)[0])
        return Number(self.b.binary("sub", end, data), None)
