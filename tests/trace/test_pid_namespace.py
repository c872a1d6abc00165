"""In a pid namespace of its own, processes have the numbers they have there."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.trace.kernel import needs_root

pytestmark = [
    needs_root,
    pytest.mark.skipif(not shutil.which("unshare"), reason="unshare (util-linux) is not installed"),
]

# Its own writes have a length of their own; so have those of a process it cannot number.
PROGRAM = """
import os, subprocess, sys, threading
from bazaar import trace
from bazaar.trace import show

text = '''
tracepoint:syscalls:sys_enter_write /args.count == 777/ { @[pid, tid] = count(); }
tracepoint:syscalls:sys_enter_write /args.count == 777 && pid == $1/ { @mine = count(); }
tracepoint:syscalls:sys_enter_write /args.count == 776/ { @others[pid] = count(); }
'''
def write(times, size):
    with open("/dev/null", "wb", buffering=0) as null:
        for _ in range(times):
            null.write(b"x" * size)

only = "tracepoint:syscalls:sys_enter_write /args.count == 777/ { @only = count(); }"
with (
    trace.attach(trace.compile(text, parameters=[str(os.getpid())])) as all,
    trace.attach(trace.compile(only, pid=os.getpid())) as one,
):
    write(5, 777)
    thread = threading.Thread(target=write, args=(2, 777))
    thread.start()
    thread.join()
    # One level further down it still has a number here, but the kernel tells only its own.
    below = "import os; [os.write(1, b'x' * 776) for _ in range(3)]"
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", below]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    all.finish(), one.finish()
    print(os.getpid(), thread.native_id)
    print(show.text([*all.maps(), *one.maps()]))
"""


def test_pid_and_tid_are_those_of_the_namespace():
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", PROGRAM]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, *lines = [line for line in said.splitlines() if line]
    pid, thread = map(int, first.split())
    assert pid == 1
    assert sorted(lines) == sorted(
        [f"@[{pid}, {pid}]: 5", f"@[{pid}, {thread}]: 2", "@mine: 7", "@others[0]: 3", "@only: 7"]
    )
