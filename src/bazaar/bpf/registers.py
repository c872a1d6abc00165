"""Register allocation by live intervals.

Code in machine form is numbered 2 positions an instruction: what it reads is live until 2i, what
it writes from 2i + 1. An interval is the set of positions where a register's value is needed,
with holes, kept as the bits of one int, so that "do these two meet" is one `&`. Intervals are
placed in the order of their starts; a move's two sides ask for the same register, so that most
moves vanish. When none is free the cheapest one (uses weighted by loop depth, per length) goes to
the stack: constants and addresses are made again instead. Then it begins anew with the new code,
until all fit. Calls overwrite r0 to r5, so what lives across one gets r6 to r9.
"""

from __future__ import annotations

from collections.abc import Sequence

from bazaar.bpf.arithmetic import signed
from bazaar.bpf.flow import depths, liveness, without_dead
from bazaar.bpf.ir import (
    AddressOf,
    Call,
    CallKernel,
    Load,
    MapAddress,
    Move,
    Node,
    Operand,
    Reg,
    Slot,
    Store,
)
from bazaar.bpf.lower import MACHINE, fits
from bazaar.errors import CompileError
from bazaar.model.record import record

NUMBERS: dict[Reg, int] = {reg: number for number, reg in enumerate(MACHINE)}
CLOBBERED = MACHINE[:6]
FOREVER = float("inf")
MAX_ROUNDS = 50


class Interval:
    """Where one register's value is needed."""

    __slots__ = ("hints", "live", "reg", "weight")

    def __init__(self, reg: Reg) -> None:
        self.reg = reg
        self.live = 0
        self.weight = 0.0
        self.hints: list[Reg] = []

    @property
    def start(self) -> int:
        """The first position."""
        return (self.live & -self.live).bit_length() - 1


@record
class Allocation:
    """Machine code whose every register has a number."""

    code: list[Node]
    numbers: dict[Reg, int]


def allocate(code: list[Node], *, slots: int = 0) -> Allocation:
    """Give each virtual register a machine register, or a stack slot numbered from ``slots``."""
    tiny: set[Reg] = set()  # made by spilling: must not be spilled again
    fresh = max((reg.number for node in code if (reg := node.defines())), default=0) + 1
    for _ in range(MAX_ROUNDS):
        code, intervals = _intervals(code)
        for interval in intervals.values():
            if interval.reg in tiny:
                interval.weight = FOREVER
        assigned, spilled = _scan(intervals)
        if not spilled:
            return Allocation(code, assigned)
        spill = _Spill(code, [intervals[reg] for reg in spilled], fresh, slots)
        code = spill.run()
        fresh, slots = spill.fresh, spill.slots
        tiny |= spill.tiny
    raise CompileError("the program needs more registers than can be had")


def _intervals(code: list[Node]) -> tuple[list[Node], dict[Reg, Interval]]:
    """Intervals of all registers; pure instructions whose result nobody reads are left out."""
    live = liveness(code)
    kept = without_dead(code, live)
    if len(kept) < len(code):
        return _intervals(kept)
    intervals = {reg: Interval(reg) for reg in live.registers}
    for reg in MACHINE:
        intervals.setdefault(reg, Interval(reg))
    loops = depths(code)
    for number, block in enumerate(live.blocks):
        ends: dict[Reg, int] = {}
        out = live.live_out[number]
        while out:
            low = out & -out
            ends[live.registers[low.bit_length() - 1]] = 2 * block.end
            out ^= low
        for index in range(block.end - 1, block.start - 1, -1):
            _extend_over(code[index], index, intervals, ends, 10.0 ** min(loops[index], 4))
        for reg, end in ends.items():
            intervals[reg].live |= (1 << end) - (1 << 2 * block.start)
    for interval in intervals.values():
        interval.weight /= interval.live.bit_count() or 1
    return code, intervals


def _extend_over(
    node: Node,
    index: int,
    intervals: dict[Reg, Interval],
    ends: dict[Reg, int],
    weight: float,
) -> None:
    written = 2 * index + 1
    if isinstance(node, (Call, CallKernel)):
        for reg in CLOBBERED:
            intervals[reg].live |= 1 << written
    dst = node.defines()
    if dst is not None:
        end = ends.pop(dst, written + 1)
        intervals[dst].live |= (1 << end) - (1 << written)
        intervals[dst].weight += weight
    for reg in node.uses():
        ends.setdefault(reg, written)
        intervals[reg].weight += weight
    if isinstance(node, Move) and isinstance(node.src, Reg):
        intervals[node.dst].hints.append(node.src)
        intervals[node.src].hints.append(node.dst)


def _scan(intervals: dict[Reg, Interval]) -> tuple[dict[Reg, int], set[Reg]]:
    busy = [intervals[reg].live for reg in MACHINE]
    fixed = list(busy)
    holders: list[list[Interval]] = [[] for _ in MACHINE]
    assigned: dict[Reg, int] = dict(NUMBERS)
    spilled: set[Reg] = set()
    waiting = [item for reg, item in intervals.items() if reg not in NUMBERS and item.live]
    waiting.sort(key=lambda item: item.start)
    for item in waiting:
        number = _free(item, busy, assigned, intervals)
        if number is None:
            number = _evict(item, busy, fixed, holders, assigned, spilled)
        if number is None:
            spilled.add(item.reg)
            continue
        busy[number] |= item.live
        holders[number].append(item)
        assigned[item.reg] = number
    return assigned, spilled


def _free(
    item: Interval,
    busy: list[int],
    assigned: dict[Reg, int],
    intervals: dict[Reg, Interval],
) -> int | None:
    for hint in item.hints:
        number = assigned.get(hint)
        if number is not None and not busy[number] & item.live:
            return number
    free = [number for number, live in enumerate(busy) if not live & item.live]
    if not free:
        return None
    # A neighbour's wish counts when it is a machine register: `t = a; t += 1; r2 = t`.
    for hint in item.hints:
        for further in intervals[hint].hints:
            if further in NUMBERS and NUMBERS[further] in free:
                return NUMBERS[further]
    return free[0]


def _evict(
    item: Interval,
    busy: list[int],
    fixed: list[int],
    holders: list[list[Interval]],
    assigned: dict[Reg, int],
    spilled: set[Reg],
) -> int | None:
    """Make room in the register whose holders are cheapest, if they are cheaper than the item."""
    best: int | None = None
    cost = item.weight
    for number in range(len(busy)):
        if fixed[number] & item.live:
            continue
        price = sum(other.weight for other in holders[number] if other.live & item.live)
        if price < cost:
            best, cost = number, price
    if best is None:
        return None
    stay: list[Interval] = []
    for other in holders[best]:
        if other.live & item.live:
            spilled.add(other.reg)
            assigned.pop(other.reg, None)
        else:
            stay.append(other)
    holders[best] = stay
    busy[best] = fixed[best]
    for other in stay:
        busy[best] |= other.live
    return best


class _Spill:
    """Rewrites code so that the spilled registers live on the stack, or are made again."""

    def __init__(
        self, code: Sequence[Node], spilled: list[Interval], fresh: int, slots: int
    ) -> None:
        self.code = code
        self.fresh = fresh
        self.slots = slots
        self.tiny: set[Reg] = set()
        self.out: list[Node] = []
        self.remade = _remade(code, {item.reg for item in spilled})
        self.home: dict[Reg, Slot] = {}
        busy: list[tuple[Slot, int]] = []  # those that are never needed together share a slot
        for item in sorted(spilled, key=lambda item: (item.start, item.reg.number)):
            if item.reg in self.remade:
                continue
            for index, (slot, live) in enumerate(busy):
                if not live & item.live:
                    busy[index] = (slot, live | item.live)
                    break
            else:
                slot = Slot(self.slots, 8)
                self.slots += 1
                busy.append((slot, item.live))
            self.home[item.reg] = slot

    def run(self) -> list[Node]:
        for node in self.code:
            dst = node.defines()
            if dst in self.remade:
                continue
            if isinstance(node, Move) and self.move(node):
                continue
            swaps: dict[Reg, Reg] = {}
            for reg in node.uses():
                if (reg in self.home or reg in self.remade) and reg not in swaps:
                    swaps[reg] = self.register()
                    self.read(swaps[reg], reg, node)
            if swaps:
                node = node.substitute(lambda reg, swaps=swaps: swaps.get(reg, reg))
            if dst is not None and dst in self.home:
                copy = swaps.get(dst) or self.register()
                self.out.append(node.into(copy))
                self.out.append(Store(self.home[dst], 0, 8, copy, line=node.line))
            else:
                self.out.append(node)
        return self.out

    def register(self) -> Reg:
        self.fresh += 1
        reg = Reg(self.fresh - 1)
        self.tiny.add(reg)
        return reg

    def read(self, dst: Reg, reg: Reg, node: Node) -> None:
        made = self.remade.get(reg)
        if made is not None:
            self.out.append(made.into(dst))
        else:
            self.out.append(Load(dst, self.home[reg], 0, 8, line=node.line))

    def move(self, node: Move) -> bool:
        """Moves from and to the stack need no register between."""
        to = self.home.get(node.dst)
        src: Operand = node.src
        if isinstance(src, Reg) and (src in self.home or src in self.remade):
            if to is None:
                self.read(node.dst, src, node)
                return True
            return False
        if to is not None and (isinstance(src, Reg) or fits(src)):
            value = src if isinstance(src, Reg) else signed(src)
            self.out.append(Store(to, 0, 8, value, line=node.line))
            return True
        return False


def _remade(code: Sequence[Node], spilled: set[Reg]) -> dict[Reg, Node]:
    """Spilled registers written once, with something that can be made again anywhere."""
    writes: dict[Reg, list[Node]] = {}
    for node in code:
        dst = node.defines()
        if dst in spilled:
            writes.setdefault(dst, []).append(node)
    found: dict[Reg, Node] = {}
    for reg, nodes in writes.items():
        node = nodes[0]
        if len(nodes) == 1 and (
            isinstance(node, MapAddress)
            or (isinstance(node, AddressOf) and isinstance(node.memory.base, Slot))
            or (isinstance(node, Move) and not isinstance(node.src, Reg))
        ):
            found[reg] = node
    return found
