"""From expressions to the IR: numbers in registers, strings in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bazaar.bpf.ir import Arithmetic, Comparison, Memory, Operand, Size
from bazaar.trace import calls, tree
from bazaar.trace.builtins import argument, parameter, text_parameter
from bazaar.trace.check import binary_type
from bazaar.trace.events import EventField
from bazaar.trace.types import COMM, UNSIGNED, Array, Int, Pointer, Text, Type

if TYPE_CHECKING:
    from bazaar.trace.lower import Lowering

_ARITHMETIC: dict[str, Arithmetic] = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "&": "and", "|": "or", "^": "xor",
    "<<": "lsh", ">>": "rsh",
}  # fmt: skip
_SIGNED: dict[str, Arithmetic] = {"/": "sdiv", "%": "smod", ">>": "arsh"}
_COMPARISONS: dict[str, tuple[Comparison, Comparison]] = {
    # unsigned, signed
    "==": ("eq", "eq"), "!=": ("ne", "ne"), "<": ("lt", "slt"), "<=": ("le", "sle"),
    ">": ("gt", "sgt"), ">=": ("ge", "sge"),
}  # fmt: skip
_CASTS: dict[str, Size] = {"8": 1, "16": 2, "32": 4, "64": 8}


class Expressions:
    """Lowers the expressions of one unit."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.b = lowering.builder

    # Numbers

    def number(self, node: tree.Expression) -> Operand:  # noqa: PLR0911, PLR0912 - one line a kind
        """The value of an expression that is no string, in a register or as a constant."""
        b = self.b
        match node:
            case tree.Integer(value=value):
                return value
            case tree.Positional(number=number):
                return parameter(self.lowering.options.parameters, number)
            case tree.Name(name=name):
                return self.builtin(name)
            case tree.Variable(name=name):
                # A copy, for `$x++ + $x`: the register changes.
                return b.move(self.lowering.numbers[name])
            case tree.Map():
                return self.lowering.maps.read_number(node)
            case tree.Field():
                field = self.field(node)
                return b.load(
                    b.context, field.offset, _width(field.size), signed=_signed(field.type)
                )
            case tree.Index():
                return self.index(node)
            case tree.Call():
                return self.call(node)
            case tree.Unary():
                return self.unary(node)
            case tree.Step():
                return self.step(node, wanted=True)
            case tree.Cast(type=name, operand=operand):
                size = _CASTS[name.lstrip("uint")]
                value = self.number(operand)
                return (
                    value if size == 8 else b.extend(value, size, signed=not name.startswith("u"))
                )
            case tree.Binary():
                return self.binary(node)
            case tree.Ternary():
                return self.ternary(node)
            case tree.String():
                raise AssertionError("a string is no number")

    def builtin(self, name: str) -> Operand:  # noqa: PLR0911, PLR0912 - one line a name
        b = self.b
        match name:
            case "pid":
                return self.task(thread=False)
            case "tid":
                return self.task(thread=True)
            case "uid":
                return b.extend(b.call("get_current_uid_gid"), 4)
            case "gid":
                return b.binary("rsh", b.call("get_current_uid_gid"), 32)
            case "nsecs":
                return b.call("ktime_get_boot_ns")
            case "elapsed":
                self.lowering.result.elapsed = True
                start = b.load(b.map_value("start"), 0, 8)
                return b.binary("sub", b.call("ktime_get_boot_ns"), start)
            case "cpu":
                return b.call("get_smp_processor_id")
            case "ncpus":
                from bazaar.bpf.maps import possible_cpus

                return possible_cpus()
            case "cgroup" | "container":
                return b.call("get_current_cgroup_id")
            case "curtask":
                return b.call("get_current_task")
            case "rand":
                return b.call("get_prandom_u32")
            case "cpid":
                return self.lowering.options.child
            case _:
                return b.load(b.context, 8 * (argument(name) or 0), 8)

    def task(self, *, thread: bool) -> Operand:
        """The number of the current process or thread as our own pid namespace knows it.

        0 for those that are in another one.
        """
        from bazaar.host.processes import pid_namespace

        b = self.b
        namespace = pid_namespace()
        if namespace is None:
            both = b.call("get_current_pid_tgid")
            return b.extend(both, 4) if thread else b.binary("rsh", both, 32)
        place = self.lowering.memory(8)  # struct bpf_pidns_info: pid, tgid; zeroes on failure
        b.call("get_ns_current_pid_tgid", *namespace, place, 8)
        return b.load(place, 0 if thread else 4, 4)

    def field(self, node: tree.Field) -> EventField:
        event = self.lowering.unit.point.event
        found = event.field(node.name) if event else None
        assert found is not None
        return found

    def index(self, node: tree.Index) -> Operand:
        b = self.b
        kind: Type = self.lowering.unit.types[id(node.of)]
        if isinstance(kind, Array):
            field = self.field(cast("tree.Field", node.of))
            offset = field.offset + kind.size * self.lowering.constant(node.index)
            return b.load(b.context, offset, _width(kind.size), signed=kind.signed)
        pointer = cast("Pointer", kind)
        size = _width(pointer.element_size)
        distance = b.binary("mul", self.number(node.index), size)
        address = b.binary("add", self.number(node.of), distance)
        place = self.lowering.memory(8)
        b.store(place, 0, 8, 0)
        b.call("probe_read_user" if pointer.user else "probe_read", place, size, address)
        return b.load(place, 0, size, signed=_signed(pointer.element or UNSIGNED))

    def call(self, node: tree.Call) -> Operand:
        b = self.b
        if node.name == "has_key":
            target = cast("tree.Map", calls.keyed(node))
            key = self.lowering.maps.key(self.lowering.result.maps[target.name], target.keys)
            return self.flag("ne", b.lookup(target.name, key), 0)
        left, right, count = node.arguments
        return self.compare_texts(left, right, "!=", self.lowering.constant(count))

    def flag(self, condition: Comparison, left: Operand, right: Operand) -> Operand:
        """1 when the condition holds, else 0, by a jump: pointers cannot be computed with."""
        b = self.b
        result = b.move(0)
        with b.when(condition, left, right):
            b.move(1, result)
        return result

    def unary(self, node: tree.Unary) -> Operand:
        value = self.number(node.operand)
        if node.operator == "!":
            return self.b.binary("eq", value, 0)
        if node.operator == "-" and isinstance(value, int):
            return -value
        return self.b.unary("neg" if node.operator == "-" else "not", value)

    def step(self, node: tree.Step, *, wanted: bool) -> Operand:
        """``++`` and ``--``; the value only where it is ``wanted``."""
        b = self.b
        amount = 1 if node.operator == "++" else -1
        if isinstance(node.target, tree.Map):
            old = self.lowering.maps.step(node.target, amount, wanted=wanted)
            return b.binary("add", old, amount) if node.before and wanted else old
        variable = self.lowering.numbers[node.target.name]
        old = b.move(variable)
        b.binary("add", variable, amount, variable)
        return b.move(variable) if node.before else old

    def binary(self, node: tree.Binary) -> Operand:
        operator = node.operator
        if operator in ("&&", "||"):
            return self.logic(node)
        kind = self.lowering.unit.types[id(node.left)]
        if isinstance(kind, Text):
            return self.compare_texts(node.left, node.right, operator, None)
        left, right = self.number(node.left), self.number(node.right)
        signed = self.signed_pair(
            kind, self.lowering.unit.types[id(node.right)], shift=operator in ("<<", ">>")
        )
        if operator in _COMPARISONS:
            return self.b.binary(_COMPARISONS[operator][signed], left, right)
        return self.arithmetic(operator, left, right, signed=signed)

    def signed_pair(self, left: Type, right: Type, *, shift: bool = False) -> bool:
        """Whether an operation on these two is signed, by C's rules."""
        return binary_type(">>" if shift else "+", left, right).signed

    def arithmetic(self, operator: str, left: Operand, right: Operand, *, signed: bool) -> Operand:
        """left operator right."""
        name = _SIGNED.get(operator, _ARITHMETIC[operator]) if signed else _ARITHMETIC[operator]
        return self.b.binary(name, left, right)

    def logic(self, node: tree.Binary) -> Operand:
        """``&&`` and ``||``, the right side only where it decides."""
        b = self.b
        stop = 0 if node.operator == "&&" else 1
        result = b.move(stop)
        end = b.label("decided")
        condition: Comparison = "eq" if node.operator == "&&" else "ne"
        b.branch(condition, self.number(node.left), 0, end)
        b.branch(condition, self.number(node.right), 0, end)
        b.move(1 - stop, result)
        b.place(end)
        return result

    def ternary(self, node: tree.Ternary) -> Operand:
        b = self.b
        result = b.register()
        otherwise, end = b.label("else"), b.label("end")
        b.branch("eq", self.number(node.condition), 0, otherwise)
        b.move(self.number(node.then), result)
        b.jump(end)
        b.place(otherwise)
        b.move(self.number(node.otherwise), result)
        b.place(end)
        return result

    # Strings

    def text_into(self, node: tree.Expression, to: Memory, size: int) -> None:
        """Write a string and zeroes behind it: ``size`` bytes, at least the room of its type."""
        b = self.b
        match node:
            case tree.String(value=value):
                self.constant_text(value, to, size)
            case tree.Name(name="comm"):
                b.call("get_current_comm", to, COMM)
                b.zero(to + COMM, size - COMM)
            case tree.Name():  # probe
                self.constant_text(self.lowering.unit.point.text, to, size)
            case tree.Variable(name=name):
                own = cast("Text", self.lowering.unit.variables[name]).room
                self.copy(to, size, self.lowering.texts[name], min(own, size))
            case tree.Map():
                self.lowering.maps.read_text(node, to, size)
            case tree.Field():
                self.text_field(self.field(node), to, size)
            case tree.Ternary(condition=condition, then=then, otherwise=otherwise):
                no, end = b.label("else"), b.label("end")
                b.branch("eq", self.number(condition), 0, no)
                self.text_into(then, to, size)
                b.jump(end)
                b.place(no)
                self.text_into(otherwise, to, size)
                b.place(end)
            case _:  # str()
                self.read_text(cast("tree.Call", node), to, size)

    def copy(self, to: Memory, size: int, source: Memory, own: int) -> None:
        self.b.copy(to, source, own)
        self.b.zero(to + own, size - own)

    def constant_text(self, value: str, to: Memory, size: int) -> None:
        self.b.bytes_(to, value.encode(errors="replace")[: size - 1].ljust(size, b"\0"))

    def text_field(self, field: EventField, to: Memory, size: int) -> None:
        """A string inside the tracepoint's record; read as one, so zeroes follow it."""
        b = self.b
        own = cast("Text", field.type).size
        b.zero(to, size)
        if field.dynamic:
            offset: Operand = b.binary("and", b.load(b.context, field.offset, 4), 0xFFFF)
            if field.dynamic == "rel_loc":
                offset = b.binary("add", offset, field.offset + field.size)
            address = b.binary("add", b.context, offset)
        else:
            address = b.binary("add", b.context, field.offset)
        b.call("probe_read_kernel_str", to, min(own, size), address)

    def read_text(self, node: tree.Call, to: Memory, size: int) -> None:
        b = self.b
        first, *rest = node.arguments
        if isinstance(first, tree.Positional):
            number = first.number
            parameters = self.lowering.options.parameters
            text = text_parameter(parameters, number) if number else str(len(parameters))
            self.constant_text(text, to, size)
            return
        kind = self.lowering.unit.types[id(first)]
        if isinstance(kind, Text):
            self.text_into(first, to, size)
            return
        address = self.number(first)
        own = cast("Text", self.lowering.unit.types[id(node)]).size
        length: Operand = own
        if rest and not isinstance(rest[0], tree.Integer):
            length = b.move(self.number(rest[0]))
            with b.when("gt", length, own - 1):
                b.move(own - 1, length)
            b.binary("add", length, 1, length)
        b.zero(to, size)
        user = isinstance(kind, Pointer) and kind.user
        b.call("probe_read_user_str" if user else "probe_read_str", to, length, address)

    def text(self, node: tree.Expression) -> tuple[Memory, int]:
        """A string somewhere in memory, and its room."""
        kind = cast("Text", self.lowering.unit.types[id(node)])
        if isinstance(node, tree.Variable):
            return self.lowering.texts[node.name], cast(
                "Text", self.lowering.unit.variables[node.name]
            ).room
        place = self.lowering.memory(kind.room)
        self.text_into(node, place, kind.room)
        return place, kind.room

    def compare_texts(
        self, left: tree.Expression, right: tree.Expression, operator: str, count: int | None
    ) -> Operand:
        """``==`` and ``!=`` word by word; of the first ``count`` bytes only, if given.

        Strings are padded with zeroes, so words behind the end are equal.
        """
        b = self.b
        if isinstance(left, tree.String):
            left, right = right, left
        one, one_size = self.text(left)
        literal = (
            right.value.encode(errors="replace") + b"\0" if isinstance(right, tree.String) else None
        )
        two, two_size = (one, len(literal)) if literal is not None else self.text(right)
        wanted = max(one_size, two_size) if literal is None else len(literal)
        wanted = wanted if count is None else min(wanted, count)
        result = b.move(1 if operator == "!=" else 0)
        end = b.label("differs")
        for at in range(0, wanted, 8):
            word = self.word(one, one_size, at)
            other: Operand
            if literal is not None:
                other = int.from_bytes(literal[at : at + 8].ljust(8, b"\0"), "little")
            else:
                other = self.word(two, two_size, at)
            if count is not None and count - at < 8:
                mask = (1 << 8 * (count - at)) - 1
                word = b.binary("and", word, mask)
                other = other & mask if isinstance(other, int) else b.binary("and", other, mask)
            b.branch("ne", word, other, end)
        b.move(0 if operator == "!=" else 1, result)
        b.place(end)
        return result

    def word(self, place: Memory, size: int, at: int) -> Operand:
        return self.b.load(place, at, 8) if at < size else 0


def _width(size: int) -> Size:
    assert size in (1, 2, 4, 8)
    return size


def _signed(kind: Type) -> bool:
    return isinstance(kind, Int) and kind.signed
