"""The flood: frames sent at a given rate into a veth pair, by BPF_PROG_RUN, bounded.

An XDP program changes the source address of a frame and says XDP_TX; run on live frames at
one end of a veth pair, the kernel sends them to the other end at millions a second. It is
made for drills: it refuses every interface that is not a veth end in a named network
namespace, and has an end in packets and in seconds.

`start` runs it as a process of its own, which `python -m bazaar.shield.generator` is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from typing import Any

from bazaar.errors import CommandError, KernelError, UsageError
from bazaar.host import namespaces
from bazaar.shield import devices, packets

BATCH = 64  # frames; the kernel's own default
MAXIMUM_SECONDS = 120.0
MAXIMUM_PACKETS = 500_000_000
# Every run costs some 20 ms of waiting for a grace period, but no work; several threads
# taking turns make one steady stream of it.
_THREADS = 4
_LATE = 0.1  # seconds; what is further behind is given up, not sent in one burst
_START_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Flood:
    """What to send: ``rate`` in packets a second, at most ``packets`` within ``seconds``.

    ``sources`` addresses (a power of two) are taken from ``network``, an IPv4 /16 or an IPv6
    /48. ``cpu`` pins the process, and with it the receiving end's work.
    """

    namespace: str
    interface: str
    destination: str
    destination_mac: str
    protocol: str = "udp"  # udp | syn
    port: int = 9
    network: str = "198.18.0.0/16"  # kept for benchmarks by RFC 2544
    sources: int = 4096
    rate: int = 1_200_000
    packets: int = 20_000_000
    seconds: float = 10.0
    size: int = 64
    cpu: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.sources <= 65_536 and self.sources & (self.sources - 1) == 0):
            raise UsageError(f"{self.sources} sources: it takes a power of two up to 65536")
        if not (0 < self.seconds <= MAXIMUM_SECONDS and 0 < self.packets <= MAXIMUM_PACKETS):
            raise UsageError(
                f"a flood of {self.packets} packets in {self.seconds} s is too long",
                hint=f"at most {MAXIMUM_PACKETS} packets and {MAXIMUM_SECONDS:g} s",
            )
        if not 64 <= self.rate <= 100_000_000:
            raise UsageError(f"rate {self.rate} is not between 64 and 100000000 packets a second")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"{self.port} is no port")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a flood was: packets handed to the kernel, and in how many seconds."""

    packets: int
    seconds: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0


class Running:
    """A flood under way in a process of its own."""

    def __init__(self, flood: Flood, process: subprocess.Popen[str]) -> None:
        self.flood = flood
        self.process = process

    def wait(self) -> Sent:
        """Wait for the flood's own end. CommandError when its process fails."""
        try:
            output, errors = self.process.communicate(timeout=self.flood.seconds + _START_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise CommandError("the packet generator did not end in time") from None
        lines = output.strip().splitlines()
        if self.process.returncode != 0 or not lines:
            said = errors.strip().splitlines()
            raise CommandError(
                f"the packet generator failed: {said[-1] if said else 'it said nothing'}",
                code=self.process.returncode,
                output=errors,
            )
        found: dict[str, Any] = json.loads(lines[-1])
        return Sent(int(found["packets"]), float(found["seconds"]))

    def stop(self) -> Sent:
        """End the flood now."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.wait()


@contextlib.contextmanager
def start(flood: Flood) -> Generator[Running]:
    """Start the flood, return when it flows; it is ended at the latest when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bazaar.shield.generator", json.dumps(asdict(flood))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    running = Running(flood, process)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().strip():
            running.wait()  # raises with what the process said
            raise CommandError("the packet generator ended before it sent anything")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def send(
    flood: Flood,
    stop: threading.Event | None = None,
    flowing: Callable[[], None] = lambda: None,
) -> Sent:
    """Send the flood from this process; returns at its end, or soon after ``stop`` is set.

    ``flowing`` is called when everything is ready and the first frames go out.

    Raises UsageError for an interface that is no veth, KernelError where the kernel refuses.
    """
    if devices.driver(flood.interface, flood.namespace) != "veth":
        raise UsageError(
            f"{flood.interface} in {flood.namespace} is no end of a veth pair",
            hint="the generator floods nothing but virtual links between namespaces",
        )
    # The kernel runs live frames only where the receive queue can take XDP: with this on.
    devices.receive_offload(flood.interface, True, flood.namespace)
    return _Sender(flood, stop or threading.Event(), flowing).run()


class _Sender:
    def __init__(self, flood: Flood, stop: threading.Event, flowing: Callable[[], None]) -> None:
        self.flood = flood
        self.stop = stop
        self.flowing = flowing
        self.began = 0.0
        self.ready = threading.Barrier(_THREADS, self._begin)
        self.sent = [0] * _THREADS
        self.problem: Exception | None = None
        self.index = devices.index(flood.interface, flood.namespace)
        self.template = packets.template(
            flood.protocol,
            flood.network,
            flood.destination,
            port=flood.port,
            size=flood.size,
            destination_mac=bytes.fromhex(flood.destination_mac.replace(":", "")),
            source_mac=devices.mac(flood.interface, flood.namespace),
        )

    def run(self) -> Sent:
        flood = self.flood
        if flood.cpu is not None:
            os.sched_setaffinity(0, {flood.cpu})
        # A flood from outside does not wait until the machine has time for it.
        with contextlib.suppress(PermissionError):
            os.nice(-15)
        threads = [threading.Thread(target=self._turns, args=[i]) for i in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.problem:
            raise self.problem
        return Sent(sum(self.sent), time.monotonic() - self.began)

    def _begin(self) -> None:
        self.began = time.monotonic()
        self.flowing()

    def _turns(self, number: int) -> None:
        try:
            with namespaces.enter(self.flood.namespace), _program(self) as program:
                self.ready.wait(_START_TIMEOUT)
                # A quarter of the turn apart, so that the bursts do not fall together.
                self.stop.wait(0.006 * number)
                self._send(number, program)
        except threading.BrokenBarrierError:
            return  # another thread has the reason
        except Exception as error:
            self.problem = error
            self.stop.set()
            self.ready.abort()

    def _send(self, number: int, program: Any) -> None:
        flood = self.flood
        rate, bound = flood.rate / _THREADS, flood.packets // _THREADS
        given_up = 0
        while not self.stop.is_set() and self.sent[number] < bound:
            elapsed = time.monotonic() - self.began
            if elapsed >= flood.seconds:
                return
            due = int(elapsed * rate) - self.sent[number] - given_up
            most = max(BATCH, int(rate * _LATE))
            if due > most:
                given_up, due = given_up + due - most, most
            due = min(due, bound - self.sent[number])
            if due < min(BATCH, bound - self.sent[number]):
                self.stop.wait(0.001)
                continue
            try:
                program.run_live(self.template.frame, self.index, due, BATCH)
            except KernelError as error:
                if not self.stop.is_set():
                    raise error
                return
            self.sent[number] += due


@contextlib.contextmanager
def _program(sender: _Sender) -> Generator[Any]:
    from bazaar.bpf.programs import AttachType, ProgramSpec, ProgramType, load

    code = instructions(sender.template, sender.flood.sources)
    with load(ProgramSpec("bazaar_flood", ProgramType.XDP, code, "GPL", AttachType.XDP)) as program:
        yield program


def instructions(template: packets.Template, sources: int) -> tuple[Any, ...]:
    """The program: a random source below ``sources``, its checksums, XDP_TX.

    Frames are used again by the kernel, so what one run wrote the next one overwrites.
    """
    from bazaar.bpf import asm
    from bazaar.bpf.asm import R0, R1, R2, R3, R6
    from bazaar.bpf.opcodes import Alu, Jump, Size

    code = [
        asm.load(Size.W, R6, R1, 0),  # xdp_md.data
        asm.load(Size.W, R2, R1, 4),  # xdp_md.data_end
        asm.mov64_reg(R3, R6),
        asm.alu64_imm(Alu.ADD, R3, len(template.frame)),
        asm.jump_reg(Jump.JGT, R3, R2, "drop"),
        asm.call("get_prandom_u32"),
        asm.alu64_imm(Alu.AND, R0, sources - 1),
        asm.mov64_reg(R1, R0),
        asm.to_be(R1, 16),
        asm.store_reg(Size.H, R6, template.vary, R1),
    ]
    for offset, partial in template.checksums:
        code += [asm.mov64_reg(R2, R0), asm.alu64_imm(Alu.ADD, R2, partial)]
        for _ in range(2):  # the sum of fewer than 65536 words folds in two steps
            code += [
                asm.mov64_reg(R3, R2),
                asm.alu64_imm(Alu.RSH, R3, 16),
                asm.alu64_imm(Alu.AND, R2, 0xFFFF),
                asm.alu64_reg(Alu.ADD, R2, R3),
            ]
        code += [
            asm.alu64_imm(Alu.XOR, R2, 0xFFFF),
            asm.to_be(R2, 16),
            asm.store_reg(Size.H, R6, offset, R2),
        ]
    xdp_drop, xdp_tx = 1, 3
    code += [
        asm.mov64_imm(R0, xdp_tx),
        asm.exit_(),
        asm.mov64_imm(R0, xdp_drop).labelled("drop"),
        asm.exit_(),
    ]
    return tuple(code)


def main() -> int:
    """The process: a flood as JSON in argv; says `flowing`, and at the end what it sent."""
    from bazaar.errors import BazaarError

    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        flood = Flood(**json.loads(sys.argv[1]))
        sent = send(flood, stop, lambda: answer(flowing=True))
    except BazaarError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    answer(packets=sent.packets, seconds=sent.seconds)
    return 0


def answer(**values: object) -> None:
    """One JSON line to the parent."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
