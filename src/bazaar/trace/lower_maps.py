"""From what is done with maps to the IR.

Numbers and strings live in hash maps all processors share, changed in place by atomic adds.
Aggregations live in per-CPU maps, so a plain load, add and store does; a histogram is one value
with all its buckets, found by one lookup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bazaar.bpf.ir import Comparison, Memory, Operand, Reg
from bazaar.trace import tree
from bazaar.trace.layout import MapLayout, buckets
from bazaar.trace.types import Aggregate, Text, room

if TYPE_CHECKING:
    from bazaar.trace.lower import Lowering

_NEW = 1  # BPF_NOEXIST


class Maps:
    """Lowers what one unit does with maps."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.b = lowering.builder

    def key(self, layout: MapLayout, keys: tuple[tree.Expression, ...]) -> Memory:
        """The key in memory."""
        values = [
            None if isinstance(kind, Text) else self.lowering.expressions.number(node)
            for node, kind in zip(keys, layout.keys, strict=True)
        ]
        place = self.lowering.memory(layout.key_size)
        if not keys:
            self.b.store(place, 0, 8, 0)
        offset = 0
        for node, kind, value in zip(keys, layout.keys, values, strict=True):
            if value is None:
                self.lowering.expressions.text_into(node, place + offset, room(kind))
            else:
                self.b.store(place, offset, 8, value)
            offset += room(kind)
        return place

    def failed(self, layout: MapLayout, result: Operand) -> None:
        """Count an update the kernel refused: the map is full."""
        with self.b.when("ne", result, 0):
            self.lowering.count(1 + layout.index)

    # Reading

    def read_number(self, node: tree.Map) -> Operand:
        """The value, 0 where there is none."""
        b = self.b
        key = self.key(self.lowering.result.maps[node.name], node.keys)
        result = b.move(0)
        found = b.lookup(node.name, key)
        with b.when("ne", found, 0):
            b.load(found, 0, 8, dst=result)
        return result

    def read_text(self, node: tree.Map, to: Memory, size: int) -> None:
        """The value, or zeroes."""
        b = self.b
        layout = self.lowering.result.maps[node.name]
        key = self.key(layout, node.keys)
        missing, end = b.label("missing"), b.label("end")
        found = b.lookup(node.name, key)
        b.branch("eq", found, 0, missing)
        self.lowering.expressions.copy(to, size, Memory(found), min(layout.value_size, size))
        b.jump(end)
        b.place(missing)
        b.zero(to, size)
        b.place(end)

    # Writing numbers and strings

    def assign(self, layout: MapLayout, target: tree.Map, value: tree.Expression) -> None:
        b = self.b
        size = layout.value_size
        if isinstance(layout.value, Text):
            place = self.lowering.memory(size)
            self.lowering.expressions.text_into(value, place, size)
        else:
            number = self.lowering.expressions.number(value)
            place = self.lowering.memory(size)
            b.store(place, 0, 8, number)
        key = self.key(layout, target.keys)
        self.failed(layout, b.update(layout.name, key, place))

    def compound(
        self, layout: MapLayout, target: tree.Map, operator: str, value: tree.Expression
    ) -> None:
        """``@m op= value``."""
        right = self.lowering.expressions.number(value)
        if operator in ("+", "-"):
            amount = right if operator == "+" else self.negative(right)
            self.add(layout, target, amount, wanted=False)
            return
        b = self.b
        expressions = self.lowering.expressions
        signed = expressions.signed_pair(
            cast("Text", layout.value), self.lowering.kind(value), shift=operator in ("<<", ">>")
        )
        key = self.key(layout, target.keys)
        place = self.lowering.memory(8)
        missing, end = b.label("missing"), b.label("end")
        found = b.lookup(layout.name, key)
        b.branch("eq", found, 0, missing)
        b.store(
            found, 0, 8, expressions.arithmetic(operator, b.load(found, 0, 8), right, signed=signed)
        )
        b.jump(end)
        b.place(missing)
        b.store(place, 0, 8, expressions.arithmetic(operator, 0, right, signed=signed))
        self.failed(layout, b.update(layout.name, key, place))
        b.place(end)

    def negative(self, value: Operand) -> Operand:
        return -value if isinstance(value, int) else self.b.unary("neg", value)

    def step(self, target: tree.Map, amount: int, *, wanted: bool) -> Operand:
        """``@m++``: the old value, where it is wanted."""
        return self.add(self.lowering.result.maps[target.name], target, amount, wanted=wanted)

    def add(self, layout: MapLayout, target: tree.Map, amount: Operand, *, wanted: bool) -> Operand:
        """Add to a number in place, so that no processor's addition is lost; gives the old one."""
        b = self.b
        key = self.key(layout, target.keys)
        place = self.lowering.memory(8)
        old = b.move(0)
        add, end = b.label("add"), b.label("end")
        found = b.lookup(layout.name, key)
        b.branch("ne", found, 0, add)
        b.store(place, 0, 8, amount)
        result = b.update(layout.name, key, place, _NEW)
        b.branch("eq", result, 0, end)
        # Another processor was faster: its entry is the one to add to.
        b.lookup(layout.name, key, dst=found)
        b.branch("ne", found, 0, add)
        self.lowering.count(1 + layout.index)
        b.jump(end)
        b.place(add)
        if wanted:
            b.load(found, 0, 8, dst=old)
        b.atomic_add(found, 0, 8, amount)
        b.place(end)
        return old

    # Aggregations

    def aggregate(self, layout: MapLayout, target: tree.Map, call: tree.Call) -> None:
        """``@m[k] = count()`` and the like."""
        b = self.b
        kind = cast("Aggregate", layout.value)
        value: Operand = (
            self.lowering.expressions.number(call.arguments[0]) if call.arguments else 1
        )
        key = self.key(layout, target.keys)
        if kind.name in ("hist", "lhist"):
            self.histogram(layout, kind, key, value)
            return
        new, end = b.label("new"), b.label("end")
        found = b.lookup(layout.name, key)
        b.branch("eq", found, 0, new)
        self.change(kind, found, value)
        b.jump(end)
        b.place(new)
        place = self.lowering.memory(layout.value_size)
        b.store(place, 0, 8, value)
        if layout.value_size > 8:
            b.store(place, 8, 8, 1)
        self.failed(layout, b.update(layout.name, key, place))
        b.place(end)

    def change(self, kind: Aggregate, found: Reg, value: Operand) -> None:
        """Add a value to what is there."""
        b = self.b
        if kind.name in ("min", "max"):
            keep, end = b.label("keep"), b.label("end")
            worse: Comparison = "sge" if kind.name == "min" else "sle"
            if not kind.signed:
                worse = "ge" if kind.name == "min" else "le"
            b.branch("eq", b.load(found, 8, 8), 0, keep)
            current = b.load(found, 0, 8)
            b.branch(worse, value, current, end)
            b.place(keep)
            b.store(found, 0, 8, value)
            b.store(found, 8, 8, 1)
            b.place(end)
            return
        b.store(found, 0, 8, b.binary("add", b.load(found, 0, 8), value))
        if kind.name in ("avg", "stats"):
            b.store(found, 8, 8, b.binary("add", b.load(found, 8, 8), 1))

    def histogram(self, layout: MapLayout, kind: Aggregate, key: Memory, value: Operand) -> None:
        b = self.b
        self.lowering.result.zeroes = max(self.lowering.result.zeroes, layout.value_size)
        there, end = b.label("there"), b.label("end")
        found = b.lookup(layout.name, key)
        b.branch("ne", found, 0, there)
        result = b.update(layout.name, key, b.map_value("zeroes"), _NEW)
        b.lookup(layout.name, key, dst=found)
        b.branch("ne", found, 0, there)
        self.failed(layout, result)
        b.jump(end)
        b.place(there)
        bucket = b.register("bucket")
        value = b.move(value)
        (self.power_bucket if kind.name == "hist" else self.linear_bucket)(kind, value, bucket)
        # What the verifier cannot follow is bounded here; it never jumps.
        b.branch("ge", bucket, buckets(kind), end)
        place = b.binary("add", found, b.binary("lsh", bucket, 3))
        b.store(place, 0, 8, b.binary("add", b.load(place, 0, 8), 1))
        b.place(end)

    def power_bucket(self, kind: Aggregate, value: Reg, bucket: Reg) -> None:
        """Negative numbers, then 0, 1, …, then ``2^bits`` buckets for each power of two."""
        b = self.b
        bits = kind.parameters[0]
        done, small = b.label("done"), b.label("small")
        b.move(0, bucket)
        b.branch("slt", value, 0, done)
        b.branch("lt", value, 1 << bits, small)
        power = b.move(0)
        rest = b.move(value)
        for shift in (32, 16, 8, 4, 2, 1):
            with b.when("ge", rest, 1 << shift):
                b.binary("rsh", rest, shift, rest)
                b.binary("add", power, shift, power)
        if bits:
            b.binary("sub", power, bits, power)
            inside = b.binary("and", b.binary("rsh", value, power), (1 << bits) - 1)
            b.binary("lsh", b.binary("add", power, 1), bits, bucket)
            b.binary("add", bucket, inside, bucket)
            b.binary("add", bucket, 1, bucket)
        else:
            b.binary("add", power, 2, bucket)
        b.jump(done)
        b.place(small)
        b.binary("add", value, 1, bucket)
        b.place(done)

    def linear_bucket(self, kind: Aggregate, value: Reg, bucket: Reg) -> None:
        """Below the minimum, steps, and from the maximum on."""
        b = self.b
        least, most, step = kind.parameters
        done = b.label("done")
        b.move(0, bucket)
        b.branch("slt", value, least, done)
        b.move(buckets(kind) - 1, bucket)
        b.branch("sge", value, most, done)
        b.binary("div", b.binary("sub", value, least), step, bucket)
        b.binary("add", bucket, 1, bucket)
        b.place(done)
