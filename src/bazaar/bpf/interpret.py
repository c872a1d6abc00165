"""An interpreter of the IR: what a function computes, without a kernel.

The tests hold the passes and the emitted code against it, and programs can be evaluated with it
where no BPF can be loaded. Pointers are plain 64-bit numbers; each piece of memory has an address
range of its own with room between, so that a stray access is an error and not somebody else's data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bazaar.bpf import arithmetic, helpers
from bazaar.bpf.ir import (
    AddressOf,
    Argument,
    AtomicAdd,
    Base,
    Binary,
    Branch,
    ByteSwap,
    Call,
    CallKernel,
    Extend,
    Function,
    Jump,
    Label,
    Load,
    MapAddress,
    MapRef,
    Memory,
    Move,
    Node,
    Operand,
    Reg,
    Return,
    Slot,
    Store,
    Unary,
)
from bazaar.errors import BazaarError

SPACE = 1 << 32  # distance of two regions
STEPS = 1_000_000


class InterpretError(BazaarError):
    """The program did what the verifier would have refused."""


@dataclass(slots=True)
class Regions:
    """All memory a program can reach."""

    parts: list[bytearray] = field(default_factory=list[bytearray])

    def add(self, data: bytearray) -> int:
        """Make the bytes reachable; their address."""
        self.parts.append(data)
        return len(self.parts) * SPACE

    def find(self, address: int, size: int) -> tuple[bytearray, int]:
        """The region and the offset in it."""
        number, offset = divmod(address, SPACE)
        if not 0 < number <= len(self.parts) or offset + size > len(self.parts[number - 1]):
            raise InterpretError(f"access to {size} bytes at {address:#x}, which is nowhere")
        return self.parts[number - 1], offset

    def read(self, address: int, size: int) -> bytes:
        """Bytes at an address."""
        part, offset = self.find(address, size)
        return bytes(part[offset : offset + size])

    def write(self, address: int, data: bytes) -> None:
        """Replace bytes at an address."""
        part, offset = self.find(address, len(data))
        part[offset : offset + len(data)] = data


@dataclass(slots=True)
class HashMap:
    """A map as lookups, updates and deletions see it; values keep their address."""

    key_size: int
    value_size: int
    max_entries: int = 1 << 20
    array: bool = False
    values: dict[bytes, bytearray] = field(default_factory=dict[bytes, bytearray])
    addresses: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def lookup(self, regions: Regions, key: bytes) -> int:
        """Address of the value or 0."""
        if self.array and int.from_bytes(key, "little") < self.max_entries:
            self.values.setdefault(key, bytearray(self.value_size))
        if key not in self.values:
            return 0
        if key not in self.addresses:
            self.addresses[key] = regions.add(self.values[key])
        return self.addresses[key]

    def update(self, regions: Regions, key: bytes, value: bytes, flags: int) -> int:
        """0 or a negative errno, as the kernel's."""
        known = self.lookup(regions, key) != 0
        if (flags == 1 and known) or (flags == 2 and not known):
            return -17 if known else -2
        if not known and len(self.values) >= self.max_entries:
            return -7
        self.values.setdefault(key, bytearray(self.value_size))[:] = value
        return 0

    def delete(self, key: bytes) -> int:
        """0 or -ENOENT."""
        if self.values.pop(key, None) is None:
            return -2
        self.addresses.pop(key, None)
        return 0


Helper = Callable[["Machine", list[int]], int]


class Machine:
    """Runs functions; ``maps`` and ``functions`` (helpers and kfuncs by name) are the kernel."""

    def __init__(
        self,
        maps: Mapping[str, HashMap] | None = None,
        functions: Mapping[str, Helper] | None = None,
    ) -> None:
        self.regions = Regions()
        self.maps = dict(maps or {})
        self.functions = dict(functions or {})
        self.handles = {name: -1 - number for number, name in enumerate(self.maps)}

    def run(self, function: Function, context: int = 0, *, steps: int = STEPS) -> int:
        """What the program returns, as a 64-bit number; InterpretError after ``steps``."""
        if function.scratch and function.scratch_name not in self.maps:
            size = -(-function.scratch // 8) * 8
            self.maps[function.scratch_name] = HashMap(4, size, 1, array=True)
            self.handles[function.scratch_name] = -1 - len(self.handles)
        return _Run(self, function, context).go(steps)


class _Run:
    def __init__(self, machine: Machine, function: Function, context: int) -> None:
        self.machine = machine
        self.code = function.code
        self.values: dict[Reg, int] = {function.context: context}
        self.slots: dict[Slot, int] = {}
        self.labels = {n.name: i for i, n in enumerate(function.code) if isinstance(n, Label)}

    def go(self, steps: int) -> int:
        at = 0
        for _ in range(steps):
            node = self.code[at]
            at += 1
            match node:
                case Return():
                    return self.value(node.value)
                case Jump():
                    at = self.labels[node.to]
                case Branch():
                    if arithmetic.holds(node.op, self.value(node.left), self.value(node.right)):
                        at = self.labels[node.to]
                case Label():
                    pass
                case _:
                    self.one(node)
        raise InterpretError(f"the program did not end within {steps} steps")

    def value(self, operand: Operand) -> int:
        if isinstance(operand, int):
            return arithmetic.unsigned(operand)
        if operand not in self.values:
            raise InterpretError(f"{operand!r} is read before it is written")
        return self.values[operand]

    def base(self, base: Base) -> int:
        if isinstance(base, Slot):
            if base not in self.slots:
                self.slots[base] = self.machine.regions.add(bytearray(base.size))
            return self.slots[base]
        return self.value(base)

    def argument(self, argument: Argument) -> int:
        if isinstance(argument, Memory):
            return arithmetic.unsigned(self.base(argument.base) + argument.offset)
        if isinstance(argument, MapRef):
            return self.machine.handles[argument.name]
        return self.value(argument)

    def one(self, node: Node) -> None:
        regions = self.machine.regions
        match node:
            case Store():
                value = self.value(node.value) & ((1 << 8 * node.size) - 1)
                address = self.base(node.base) + node.offset
                regions.write(address, value.to_bytes(node.size, "little"))
            case AtomicAdd():
                address = self.base(node.base) + node.offset
                old = int.from_bytes(regions.read(address, node.size), "little")
                new = old + self.value(node.value) & ((1 << 8 * node.size) - 1)
                regions.write(address, new.to_bytes(node.size, "little"))
            case Call() | CallKernel():
                self.call(node)
            case _:
                dst = node.defines()
                if dst is not None:
                    self.values[dst] = arithmetic.unsigned(self.result(node))

    def result(self, node: Node) -> int:  # noqa: PLR0911 - one case an instruction
        match node:
            case Move():
                return self.value(node.src)
            case Binary():
                return arithmetic.binary(node.op, self.value(node.left), self.value(node.right))
            case Unary():
                return -self.value(node.src) if node.op == "neg" else ~self.value(node.src)
            case Extend():
                return arithmetic.extend(self.value(node.src), node.size, sign=node.signed)
            case ByteSwap():
                return arithmetic.byte_swap(self.value(node.src), node.size)
            case Load():
                data = self.machine.regions.read(self.base(node.base) + node.offset, node.size)
                return int.from_bytes(data, "little", signed=node.signed)
            case AddressOf():
                return self.argument(node.memory)
            case MapAddress(value=True):
                found = self.machine.maps[node.map.name]
                return found.lookup(self.machine.regions, bytes(found.key_size)) + node.offset
            case MapAddress():
                return self.machine.handles[node.map.name]
            case _:
                raise InterpretError(f"cannot run {type(node).__name__}")

    def call(self, node: Call | CallKernel) -> None:
        values = [self.argument(argument) for argument in node.arguments]
        name = node.function if isinstance(node, CallKernel) else helpers.name(node.helper)
        if name in {"map_lookup_elem", "map_update_elem", "map_delete_elem"}:
            value = self.map_call(name, values)
        elif name in self.machine.functions:
            value = self.machine.functions[name](self.machine, values)
        else:
            raise InterpretError(f"no helper {name} is given")
        if node.dst is not None:
            self.values[node.dst] = arithmetic.unsigned(value)

    def map_call(self, name: str, values: list[int]) -> int:
        machine = self.machine
        named = {handle: map_name for map_name, handle in machine.handles.items()}
        found = machine.maps[named[arithmetic.signed(values[0])]]
        key = machine.regions.read(values[1], found.key_size)
        if name == "map_lookup_elem":
            return found.lookup(machine.regions, key)
        if name == "map_delete_elem":
            return found.delete(key)
        value = machine.regions.read(values[2], found.value_size)
        return found.update(machine.regions, key, value, values[3])
