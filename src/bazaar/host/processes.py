"""Processes, named so that a recycled pid is never taken for the one that was meant.

A pid alone names whatever process has that number now. Together with the start time of
/proc/PID/stat (proc(5), field 22) it names one process of this boot for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time

from bazaar.errors import KernelError
from bazaar.model.record import record

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of linux/proc_ns.h


@record
class Identity:
    """One process of this boot: its pid and its start time in clock ticks since boot."""

    pid: int
    start: int


def start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, field 2, may hold spaces and brackets: count from its last bracket.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def identify(pid: int) -> Identity | None:
    """The identity of the process that has ``pid`` now; None when there is none."""
    if pid <= 0:
        return None
    start = start_time(pid)
    return None if start is None else Identity(pid, start)


def pid_namespace() -> tuple[int, int] | None:
    """Device (as the kernel numbers it) and inode of our pid namespace; None in the first one.

    The pair is what bpf_get_ns_current_pid_tgid(2) takes, see bpf-helpers(7).
    """
    found = os.stat("/proc/self/ns/pid")
    if found.st_ino == _FIRST_PID_NAMESPACE:
        return None
    return os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino


def alive(identity: Identity) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    return identity.pid > 0 and start_time(identity.pid) == identity.start


def pidfd(identity: Identity) -> int | None:
    """A descriptor of that very process, readable once it ends; None when it is gone.

    The caller closes it.
    """
    if identity.pid <= 0:
        return None
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: from here on the descriptor cannot come to mean another process.
    if start_time(identity.pid) != identity.start:
        os.close(descriptor)
        return None
    return descriptor


def send(identity: Identity, number: int) -> bool:
    """Send a signal to that very process; False when it is gone."""
    descriptor = pidfd(identity)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait(identity: Identity, timeout: float | None = None) -> bool:
    """Wait until that process has ended; False when ``timeout`` seconds passed first."""
    descriptor = pidfd(identity)
    if descriptor is None:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
    finally:
        os.close(descriptor)


def terminate(identity: Identity, timeout: float = 5.0, number: int = signal.SIGTERM) -> bool:
    """Ask that process to end, and after ``timeout`` seconds make it; False when it stays.

    A process in an uninterruptible call stays even after SIGKILL.
    """
    if not send(identity, number) or wait(identity, timeout):
        return True
    send(identity, signal.SIGKILL)
    return wait(identity, 5.0)


def become_subreaper() -> None:
    """Have orphaned descendants become our children, so that we learn how they ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise KernelError(f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(error)}", errno=error)


def exit_code(status: int) -> int:
    """A shell's exit code of a wait(2) status: 128 + n for a signal."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def command_line(pid: int) -> tuple[str, ...]:
    """The arguments ``pid`` was started with; empty when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return tuple(part.decode(errors="replace") for part in file.read().split(b"\0")[:-1])
    return ()


def started_at(identity: Identity) -> float:
    """When the process started, in seconds since the epoch."""
    ticks = os.sysconf("SC_CLK_TCK")
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + identity.start / ticks
