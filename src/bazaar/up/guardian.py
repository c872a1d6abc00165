"""The guardian: starts the supervisor, its child, again whenever that is killed; and their end.

It does nothing else: at once, by a fork that has all loaded, however busy the machine is. Both
end when the child is told to stop. A guardian that was itself killed leaves a supervisor that
nobody would start again: the next guardian ends that one, and takes its place.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection
from pathlib import Path

from bazaar.errors import BazaarError, LockedError, StateError
from bazaar.host import paths, processes
from bazaar.host.files import lock
from bazaar.host.processes import Identity
from bazaar.up import rpc
from bazaar.up.daemon import ENDING, log, socket_path, supervise

FIRST_PAUSE = 0.05  # seconds before a supervisor that ended is started again, then doubled
LONGEST_PAUSE = {"killed": 1.0, "failed": 10.0}  # it is not its fault when somebody kills it
RAN_WELL = 10.0  # seconds after which the pause begins anew
# What a supervisor works with; the guardian has it, so that none has to load it once more.
MODULES = (
    "run.containers",
    "run.images",
    "shield.door",
    "shield.guard",
    "site.balance",
    "site.names",
    "site.network",
    "trace.pinned",
    "trace.show",
    "up.rollout",
    "up.status",
)


def guard(bazaar: str) -> int:
    """Run the supervisor, and start it again whenever it is killed; 0 when told to stop.

    Raises LockedError where another guardian does so already.
    """
    for module in MODULES:
        importlib.import_module(f"bazaar.{module}")
    try:
        with lock(paths.bazaar(bazaar) / "guardian.lock", "supervise") as held:
            end(bazaar, spare={os.getpid()})  # whose guardian was killed
            return _guard(bazaar, held)
    except LockedError as error:
        holder = error.message.rpartition(" by ")[2]
        raise LockedError(
            f"bazaar {bazaar} is supervised already, by {holder}",
            hint=f"`bazaar status {bazaar}` asks that supervisor",
        ) from error


def _guard(bazaar: str, held: int) -> int:
    pause = FIRST_PAUSE
    awaited = {*ENDING, signal.SIGCHLD}
    # Waited for rather than handled: no signal can then go to a child that is gone.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        began = time.monotonic()
        guardian = os.getpid()
        child = os.fork()
        if child == 0:
            os.close(held)  # the lock is the guardian's alone
            _work(bazaar, guardian)
        status = _tend(child, awaited)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return 0
        killed = os.WIFSIGNALED(status)
        if killed:  # else it said itself why it ended
            log(f"the supervisor was killed by signal {os.WTERMSIG(status)}, starting it again")
        pause = next_pause(pause, time.monotonic() - began, killed=killed)
        if signal.sigtimedwait(ENDING, pause) is not None:
            return 0


def _work(bazaar: str, guardian: int) -> None:
    """The child's whole life: it never returns, and never ends without a word of why."""
    code = 1
    try:
        code = supervise(bazaar, guardian)
    except BazaarError as error:
        log(f"the supervisor ended: {'; '.join(str(error).splitlines())}")
    except BaseException:
        log(f"the supervisor ended: {traceback.format_exc()}")
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def next_pause(last: float, ran: float, *, killed: bool) -> float:
    """Seconds until a supervisor that ran for so many seconds is started again."""
    if ran > RAN_WELL:
        return FIRST_PAUSE
    return min(last * 2, LONGEST_PAUSE["killed" if killed else "failed"])


def _tend(child: int, awaited: set[signal.Signals]) -> int:
    """Pass on what is to end us until the child has ended; its wait status."""
    while True:
        number = signal.sigwait(awaited)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if number != signal.SIGCHLD:
            os.kill(child, number)


# Ending them from outside


def end(bazaar: str, spare: Collection[int] = ()) -> None:
    """End whoever supervises a bazaar, but the processes of ``spare``: ask, then make them.

    Raises StateError when one stays even so.
    """
    found = find(bazaar, spare)
    try:
        rpc.call(socket_path(bazaar), "stop", timeout=5)
    except (OSError, BazaarError):
        _kill(found)
    for patience in (10.0, 5.0, 5.0):
        deadline = time.monotonic() + patience
        # One on its way out is no longer found by its arguments: it is known from before.
        while found := _left(found) or find(bazaar, spare):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            processes.wait(found[-1], left)
        else:
            return
        _kill(find(bazaar, spare))
    raise StateError(
        f"bazaar {bazaar}: its supervisor (process {found[-1].pid}) does not end, even by SIGKILL",
        hint=f"see what it waits for: cat /proc/{found[-1].pid}/stack",
    )


def _left(found: list[Identity]) -> list[Identity]:
    return [one for one in found if processes.alive(one)]


def _kill(found: list[Identity]) -> None:
    """The guardian first, or it starts another child."""
    for identity in found:
        processes.send(identity, signal.SIGKILL)


def find(bazaar: str, spare: Collection[int] = ()) -> list[Identity]:
    """The processes that supervise this bazaar, the guardian before its child."""
    found: list[Identity] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spare:
            continue
        # Identified before it is looked at: what is killed then is what was looked at.
        identity = processes.identify(int(entry)) if _claims(int(entry), bazaar) else None
        if identity is not None and _claims(identity.pid, bazaar) and _shares_state(identity.pid):
            found.append(identity)
    return sorted(found, key=lambda one: (one.start, one.pid))


def _claims(process: int, bazaar: str) -> bool:
    """Whether a process was started as `bazaar supervise NAME`, by whichever launcher."""
    words = processes.command_line(process)
    if words[-2:] != ("supervise", bazaar) or not Path(words[0]).name.startswith("python"):
        return False
    return any(Path(word).name in ("bazaar", "__main__.py") for word in words[1:-2])


def _shares_state(process: int) -> bool:
    """Whether a process has the state folder that we have; one in a container has its own."""
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        chosen = next((e[13:] for e in environment if e.startswith(b"BAZAAR_STATE=")), b"")
        folder = Path(os.fsdecode(chosen or b"/var/lib/bazaar"))
        if folder.is_absolute():
            theirs = Path(f"/proc/{process}/root", *folder.parts[1:])
        else:
            theirs = Path(f"/proc/{process}/cwd", folder)
        return os.path.samefile(theirs, paths.state())
    except OSError:
        return False
