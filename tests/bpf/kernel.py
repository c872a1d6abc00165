"""What the tests of the eBPF core share: names of their own, small programs, a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from bazaar.bpf import asm, maps, programs
from bazaar.bpf.asm import Instruction
from bazaar.bpf.maps import Map, MapSpec, MapType
from bazaar.bpf.opcodes import Alu, Atomic, Jump, Size
from bazaar.bpf.programs import Program, ProgramSpec, ProgramType

root = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
bpftool = pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool is not installed")


def unique() -> str:
    """A name no other test uses; short enough for the kernel, without dots for bpffs."""
    return f"t{uuid.uuid4().hex[:8]}"


def counting(result: int = 0) -> tuple[Instruction, ...]:
    """Add one to element 0 of the map ``counts`` and return ``result``."""
    return (
        asm.store_imm(Size.W, asm.FP, -4, 0),
        asm.mov64_reg(asm.R2, asm.FP),
        asm.alu64_imm(Alu.ADD, asm.R2, -4),
        asm.load_map(asm.R1, "counts"),
        asm.call("map_lookup_elem"),
        asm.jump_imm(Jump.JEQ, asm.R0, 0, "out"),
        asm.mov64_imm(asm.R1, 1),
        asm.atomic(Atomic.ADD, Size.DW, asm.R0, 0, asm.R1),
        asm.mov64_imm(asm.R0, result).labelled("out"),
        asm.exit_(),
    )


class Counter:
    """A program that counts its runs."""

    def __init__(
        self, kind: ProgramType, *, attach: int = 0, target: int = 0, result: int = 0
    ) -> None:
        self.map: Map = maps.create(MapSpec("counts", MapType.ARRAY, 4, 8, 1))
        self.program: Program = programs.load(
            ProgramSpec(unique(), kind, counting(result), "GPL", attach, target),
            {"counts": self.map},
        )

    @property
    def count(self) -> int:
        value = self.map.lookup(b"\0" * 4)
        assert value is not None
        return struct.unpack("<Q", value)[0]

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.close()
        self.map.close()


@contextlib.contextmanager
def namespace_with_veth() -> Iterator[tuple[str, int]]:
    """A network namespace that this thread is in, with a veth pair; gives the name and number
    of one end. The other end is up, too, so that frames arrive."""
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        setns(there)
        for line in ("link add va type veth peer name vb", "link set va up", "link set vb up"):
            subprocess.run(["ip", *line.split()], check=True)
        with open("/proc/thread-self/net/dev") as file:
            assert "va" in file.read()
        import socket

        yield "va", socket.if_nametoindex("va")
    finally:
        setns(home)
        os.close(home)
        os.close(there)
        subprocess.run(["ip", "netns", "delete", name], check=True)


def setns(fd: int) -> None:
    import ctypes

    assert ctypes.CDLL(None).setns(fd, 0x40000000) == 0
