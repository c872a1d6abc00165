"""Probes agree with what the kernel does when asked in earnest."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from bazaar.bpf import features
from bazaar.errors import KernelError
from tests.bpf import kernel

pytestmark = kernel.root


def test_every_probe_answers_and_leaves_nothing() -> None:
    features.report()
    before = sorted(os.listdir("/proc/self/fd"))
    for probe in features.ALL:
        probe.cache_clear()  # type: ignore[attr-defined]
    report = features.report()
    assert len(report) == len(features.ALL)
    assert sorted(os.listdir("/proc/self/fd")) == before
    # Without these nothing of Bazaar's eBPF works: a machine for tests must have them.
    for name in ("bpf", "ring_buffer", "batch_operations", "bounded_loops", "tracepoints"):
        assert report[name], name


def test_native_xdp_by_interface() -> None:
    with kernel.namespace_with_veth() as (_, near):
        assert features.have_xdp_native(near) is True
        # The loopback device's driver has none.
        assert features.have_xdp_native(1) is False


@kernel.bpftool
def test_bpftool_agrees() -> None:
    shown = subprocess.run(
        ["bpftool", "-j", "feature", "probe", "kernel"], capture_output=True, text=True, check=True
    ).stdout
    theirs = json.loads(shown)
    assert features.have_bounded_loops() == theirs["misc"]["have_bounded_loops"]
    assert features.have_ring_buffer() == theirs["map_types"]["have_ringbuf_map_type"]


def test_without_privilege_everything_is_refused_with_a_reason() -> None:
    # A child that gives root away: the probes say no, and the error names the privilege.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"crashed"
        try:
            os.setgid(65534)
            os.setuid(65534)
            features.have_bpf.cache_clear()
            from bazaar.bpf import maps

            try:
                maps.create(maps.MapSpec("x", maps.MapType.HASH, 4, 4, 1))
                answer = b"made"
            except KernelError as error:
                answer = f"{features.have_bpf()} {error.hint}".encode()
        finally:
            os.write(write, answer)
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    answer = os.read(read, 1000).decode()
    os.close(read)
    if answer == "made":
        pytest.skip("this kernel lets anybody use bpf(2)")
    assert answer.startswith("False BPF needs root")
