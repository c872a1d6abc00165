"""From a checked program to the IR: statements, and the events they send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from bazaar.bpf.asm import SourceLine
from bazaar.bpf.builder import Builder
from bazaar.bpf.ir import Function, MapRef, Memory, Operand, Reg
from bazaar.model.record import record
from bazaar.trace import calls, formats, tree
from bazaar.trace.builtins import parameter
from bazaar.trace.check import Checked, Unit
from bazaar.trace.layout import (
    Action,
    Clear,
    Exit,
    MapLayout,
    PrintEntry,
    Printf,
    PrintMap,
    PrintValue,
    Time,
    layouts,
)
from bazaar.trace.lower_expressions import Expressions
from bazaar.trace.lower_maps import Maps
from bazaar.trace.types import Aggregate, Stored, Text, room

EVENTS = "events"
COUNTERS = "counters"
ZEROES = "zeroes"
START = "start"
CONTAINERS = "containers"  # control groups whose events count
FIRST = 0  # the counter of lost events; one of failed updates for each map follows


@record
class Options:
    """What the command line says about a program beside its text."""

    parameters: tuple[str, ...] = ()
    pid: int = 0  # of the one process whose events count
    child: int = 0  # `cpid`
    file: str = "program"
    containers: tuple[str, ...] = ()  # whose events count alone


class Lowered:
    """All programs of a text, and what they share."""

    def __init__(self, maps: dict[str, MapLayout]) -> None:
        self.maps = maps
        self.functions: list[Function] = []
        self.actions: list[Action] = []
        self.zeroes = 0  # bytes of the empty value that new histograms start with
        self.elapsed = False


def lower(checked: Checked, options: Options) -> Lowered:
    """One function for each unit, in order."""
    result = Lowered(layouts(checked.maps))
    lines = checked.text.splitlines()
    for number, unit in enumerate(checked.units):
        name = f"{unit.point.kind.lower()[:8]}_{number}"
        result.functions.append(Lowering(checked, unit, options, result, name, lines).run())
    return result


class Lowering:
    """One unit's function in the making. Values are made by ``expressions``, maps by ``maps``."""

    def __init__(
        self,
        checked: Checked,
        unit: Unit,
        options: Options,
        result: Lowered,
        name: str,
        lines: Sequence[str],
    ) -> None:
        self.checked = checked
        self.unit = unit
        self.options = options
        self.result = result
        self.builder = Builder(name)
        self.lines = lines
        self.starts = _line_starts(checked.text)
        self.free: dict[int, list[Memory]] = {}
        self.taken: list[tuple[int, Memory]] = []
        self.numbers: dict[str, Reg] = {}
        self.texts: dict[str, Memory] = {}
        self.expressions = Expressions(self)
        self.maps = Maps(self)

    def run(self) -> Function:
        b = self.builder
        self.at(self.unit.clause.span[0])
        self.filter()
        for name, kind in self.unit.variables.items():
            if isinstance(kind, Text):
                self.texts[name] = b.buffer(kind.room)
                b.zero(self.texts[name], kind.room)
            else:
                self.numbers[name] = b.move(0)
        if self.unit.clause.predicate is not None:
            self.at(self.unit.clause.predicate.span[0])
            b_value = self.expressions.number(self.unit.clause.predicate)
            self.release()
            with b.when("eq", b_value, 0):
                b.return_(0)
        if not self.body(self.unit.clause.body):
            b.return_(0)
        return b.finish()

    def filter(self) -> None:
        """Leave for processes and containers that were not asked for."""
        if self.unit.point.kind in ("BEGIN", "END", "interval"):
            return
        b = self.builder
        if self.options.pid:
            process = self.expressions.task(thread=False)
            with b.when("ne", process, self.options.pid):
                b.return_(0)
        if self.options.containers:
            group = self.memory(8)
            b.store(group, 0, 8, b.call("get_current_cgroup_id"))
            with b.when("eq", b.lookup(CONTAINERS, group), 0):
                b.return_(0)
        self.release()

    # Places and temporary memory

    def at(self, offset: int) -> None:
        """What follows comes from this place of the text."""
        import bisect

        line = bisect.bisect_right(self.starts, offset)
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        self.builder.line = SourceLine(
            self.options.file, line, text, offset - self.starts[line - 1] + 1
        )

    def memory(self, size: int) -> Memory:
        """Memory until the statement ends; its content is not defined."""
        size = -(-size // 8) * 8
        free = self.free.setdefault(size, [])
        found = free.pop() if free else self.builder.buffer(size)
        self.taken.append((size, found))
        return found

    def release(self) -> None:
        """The statement is over: its memory may be used again."""
        for size, memory in self.taken:
            self.free[size].append(memory)
        self.taken.clear()

    def kind(self, node: tree.Expression) -> Stored:
        """The type of an expression that has a value."""
        return cast("Stored", self.unit.types[id(node)])

    # Statements

    def body(self, statements: tuple[tree.Statement, ...]) -> bool:
        """Lower a block; whether it always leaves the program."""
        for statement in statements:
            self.at(statement.span[0])
            left = self.statement(statement)
            self.release()
            if left:
                return True
        return False

    def statement(self, statement: tree.Statement) -> bool:
        match statement:
            case tree.Assign():
                self.assign(statement)
            case tree.Evaluate(value=tree.Call() as call):
                return self.call(call)
            case tree.Evaluate(value=value):
                self.expressions.step(cast("tree.Step", value), wanted=False)
            case tree.If():
                return self.condition(statement)
            case tree.Unroll(count=count, body=body):
                for _ in range(self.constant(count)):
                    if self.body(body):
                        return True
            case tree.Return():
                self.builder.return_(0)
                return True
        return False

    def condition(self, statement: tree.If) -> bool:
        b = self.builder
        value = self.expressions.number(statement.condition)
        self.release()
        otherwise, end = b.label("else"), b.label("end")
        b.branch("eq", value, 0, otherwise)
        left = self.body(statement.then)
        if not left:
            b.jump(end)
        b.place(otherwise)
        left = self.body(statement.otherwise) and left
        if not left:
            b.place(end)
        return left

    def assign(self, statement: tree.Assign) -> None:
        b = self.builder
        target, value = statement.target, statement.value
        if isinstance(target, tree.Map):
            layout = self.result.maps[target.name]
            if isinstance(layout.value, Aggregate):
                self.maps.aggregate(layout, target, cast("tree.Call", value))
            elif statement.operator:
                self.maps.compound(layout, target, statement.operator, value)
            else:
                self.maps.assign(layout, target, value)
        elif statement.operator:
            known = self.numbers[target.name]
            right = self.expressions.number(value)
            signed = self.expressions.signed_pair(
                self.unit.variables[target.name], self.kind(value)
            )
            b.move(
                self.expressions.arithmetic(statement.operator, known, right, signed=signed), known
            )
        elif target.name in self.texts:
            kind = cast("Text", self.unit.variables[target.name])
            # By way of a copy: the value may read the variable itself.
            copy = self.memory(kind.room)
            self.expressions.text_into(value, copy, kind.room)
            b.copy(self.texts[target.name], copy, kind.room)
        else:
            b.move(self.expressions.number(value), self.numbers[target.name])

    # Calls made for what they do

    def call(self, node: tree.Call) -> bool:
        match node.name:
            case "printf":
                self.printf(node)
            case "print":
                self.print(node)
            case "clear" | "zero":
                self.send(Clear(_map(node).name, node.name == "zero"))
            case "delete":
                target = cast("tree.Map", calls.keyed(node))
                key = self.maps.key(self.result.maps[target.name], target.keys)
                self.builder.delete(target.name, key)
            case "time":
                text = (
                    cast("tree.String", node.arguments[0]).value if node.arguments else "%H:%M:%S\n"
                )
                self.send(Time(text))
            case "exit":
                code = self.expressions.number(node.arguments[0]) if node.arguments else 0
                self.send_values(Exit(), [code])
                self.builder.return_(0)
                return True
            case _:  # has_key() and the like: the checker lets no value go unused
                raise AssertionError(node.name)
        return False

    def printf(self, node: tree.Call) -> None:
        text = cast("tree.String", node.arguments[0]).value
        values = node.arguments[1:]
        kinds = tuple(map(self.kind, values))
        self.send_all(Printf(tuple(formats.parse(text)), kinds), values, kinds)

    def print(self, node: tree.Call) -> None:
        first, *rest = node.arguments
        if isinstance(first, tree.Map):
            layout = self.result.maps[first.name]
            if not first.keys and (layout.keys or isinstance(layout.value, Aggregate)):
                top, divisor = [*map(self.constant, rest), 0, 0][:2] if rest else (0, 0)
                self.send(PrintMap(first.name, top, divisor or 1))
                return
            key = self.maps.key(layout, first.keys)
            self.send_memory(PrintEntry(first.name), key, layout.key_size)
            return
        kind = self.kind(first)
        self.send_all(PrintValue(kind), [first], (kind,))

    def constant(self, node: tree.Expression) -> int:
        if isinstance(node, tree.Unary):
            return -self.constant(node.operand)
        if isinstance(node, tree.Positional):
            return parameter(self.options.parameters, node.number)
        return cast("tree.Integer", node).value

    # Events

    def action(self, action: Action) -> int:
        """The action's number; equal ones share it."""
        if action not in self.result.actions:
            self.result.actions.append(action)
        return self.result.actions.index(action)

    def send(self, action: Action) -> None:
        self.send_values(action, [])

    def send_values(self, action: Action, values: Sequence[Operand]) -> None:
        def fill(record: Reg) -> None:
            for position, value in enumerate(values):
                self.builder.store(record, 8 + 8 * position, 8, value)

        self.event(action, 8 * len(values), fill)

    def send_memory(self, action: Action, source: Memory, size: int) -> None:
        self.event(action, size, lambda record: self.builder.copy(Memory(record, 8), source, size))

    def send_all(
        self, action: Action, nodes: Sequence[tree.Expression], kinds: tuple[Stored, ...]
    ) -> None:
        """Evaluate straight into the event: strings are not copied twice."""
        numbers = [
            None if isinstance(kind, Text) else self.expressions.number(node)
            for node, kind in zip(nodes, kinds, strict=True)
        ]

        def fill(record: Reg) -> None:
            offset = 8
            for node, kind, number in zip(nodes, kinds, numbers, strict=True):
                if number is None:
                    self.expressions.text_into(node, Memory(record, offset), room(kind))
                else:
                    self.builder.store(record, offset, 8, number)
                offset += room(kind)

        self.event(action, sum(map(room, kinds)), fill)

    def event(self, action: Action, size: int, fill: Callable[[Reg], None]) -> None:
        b = self.builder
        lost, end = b.label("lost"), b.label("end")
        record = b.call("ringbuf_reserve", MapRef(EVENTS), 8 + size, 0)
        b.branch("eq", record, 0, lost)
        b.store(record, 0, 8, self.action(action))
        fill(record)
        b.call("ringbuf_submit", record, 0)
        b.jump(end)
        b.place(lost)
        self.count(FIRST)
        b.place(end)

    def count(self, counter: int) -> None:
        """Add one to a counter of what was lost."""
        b = self.builder
        key = self.memory(8)
        b.store(key, 0, 4, 0)
        found = b.lookup(COUNTERS, key)
        with b.when("ne", found, 0):
            b.store(found, 8 * counter, 8, b.binary("add", b.load(found, 8 * counter, 8), 1))


def _map(node: tree.Call) -> tree.Map:
    return cast("tree.Map", node.arguments[0])


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts
