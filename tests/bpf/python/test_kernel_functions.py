"""Kernel functions called from Python programs, on this kernel."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess

import pytest

from bazaar.bpf import btf
from bazaar.bpf.python import XDP_DROP, XDP_PASS
from bazaar.errors import BtfError, VerifierError
from tests.bpf import kernel

from . import kernel_functions as samples

pytestmark = kernel.root
ENOENT = 2


def needs(name: str) -> None:
    try:
        btf.kernel().find(name, btf.Kind.FUNC)
    except BtfError:
        pytest.skip(f"this kernel has no {name}")


def datagram(source: int, destination: int) -> bytes:
    address = bytes([127, 0, 0, 1])
    ip = bytes([0x45, 0]) + struct.pack(">HHHBBH", 28, 0, 0, 64, 17, 0) + address + address
    return bytes(12) + b"\x08\x00" + ip + struct.pack(">HHHH", source, destination, 8, 0)


def only(program, name: str) -> int:
    return struct.unpack("<Q", program.maps[name].lookup(bytes(4)))[0]


def test_connections_are_looked_up(loaded) -> None:
    """A datagram the kernel tracks is found by its addresses, another is not."""
    needs("bpf_xdp_ct_lookup")
    if not shutil.which("nft"):
        pytest.skip("nft (nftables) is not installed")
    program = loaded(samples.tracked)
    with kernel.namespace_with_veth():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        rules = "table ip t { chain c { type filter hook output priority 0; ct state new; }; }"
        subprocess.run(["nft", rules], check=True)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind(("127.0.0.1", 0))
            sender.bind(("127.0.0.1", 0))
            ports = sender.getsockname()[1], receiver.getsockname()[1]
            assert program.run(datagram(*ports)).value == XDP_PASS
            assert only(program, "errors") == ENOENT
            sender.sendto(b"x", receiver.getsockname())
            assert program.run(datagram(*ports)).value == XDP_DROP
            assert program.run(datagram(ports[0], ports[1] ^ 1)).value == XDP_PASS


def test_what_is_acquired_must_be_released(loaded) -> None:
    needs("bpf_xdp_ct_lookup")
    with pytest.raises(VerifierError, match="reference leak|Unreleased reference"):
        loaded(samples.leaking)


def test_iterators(loaded) -> None:
    needs("bpf_iter_num_new")
    program = loaded(samples.summed)
    assert program.run(bytes(14)).value == XDP_PASS
    assert only(program, "sums") == 3 + 4 + 5 + 6 + 7
