"""Programs of this machine, called by argument list, with a time limit and readable failures."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bazaar.errors import CommandError, MissingError
from bazaar.model.record import record
from bazaar.typed import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

# Debian gives a plain user, and root through `su`, a PATH without these.
_ADMIN_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_OUTPUT_LIMIT = 64 << 20  # bytes; a program that says more than this has lost its way


@record
class Finished:
    """What a program left behind."""

    arguments: tuple[str, ...]
    code: int  # exit code; minus the signal's number when a signal ended it
    output: str
    errors: str
    seconds: float


def find(program: str, *, package: str | None = None) -> str:
    """The path of ``program``; MissingError, naming Debian's package, when it is not here."""
    if found := which(program):
        return found
    hint = f"apt-get install {package}, or `bazaar doctor --fix`" if package else None
    raise MissingError(f"{program} is not installed on this machine", hint=hint)


def which(program: str) -> str | None:
    """The path of ``program``, or None; looks into the administrator's folders too.

    As shutil.which, whose module takes 3 ms to import.
    """
    search = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in ("",) if "/" in program else (*search, *_ADMIN_FOLDERS):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def run(
    arguments: Sequence[str | Path],
    *,
    timeout: float | None = 30.0,
    text: str | None = None,
    check: bool = True,
    package: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Finished:
    """Run a program to its end and return what it said.

    ``text`` is its standard input, ``environment`` replaces ours, ``folder`` is where it
    runs, ``timeout`` is in seconds (None: no limit). A program that leaves a daemon behind
    is waited for, its daemon is not. Raises MissingError when there is no such program,
    CommandError when it takes too long or, with ``check``, ends with anything but 0.
    """
    words = [find(str(arguments[0]), package=package), *map(str, arguments[1:])]
    started = time.monotonic()
    files = [_memory_file("stdin", text), _memory_file("stdout"), _memory_file("stderr")]
    try:
        process = _start(words, files, environment, folder)
        problem = _wait(process, timeout, files[1:])
        output, errors = (_content(file) for file in files[1:])
    finally:
        for file in files:
            os.close(file)
    finished = Finished(
        tuple(words), process.returncode, output, errors, time.monotonic() - started
    )
    if problem or (check and finished.code != 0):
        raise failure(finished, problem)
    return finished


def follow(
    words: Sequence[str], heard: Callable[[str], None], environment: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Run a long program, each line it says being ``heard``; its exit code, and its last lines."""
    import subprocess

    last: deque[str] = deque(maxlen=50)
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            heard(last[-1])
    return process.returncode, list(last)


def failure(finished: Finished, problem: str | None = None) -> CommandError:
    """The error that tells why a program failed: its own last words, else its exit code."""
    said = (finished.errors.strip() or finished.output.strip()).splitlines()
    ended = (
        f"ended by {_signal_name(-finished.code)}"
        if finished.code < 0
        else f"exit {finished.code} after {finished.seconds:.1f} s"
    )
    reason = problem or (said[-1].strip() if said else ended)
    return CommandError(
        f"{_shown(finished.arguments)}: {reason}",
        code=finished.code,
        output=finished.output + finished.errors,
    )


def _start(
    words: list[str], files: list[int], environment: Mapping[str, str] | None, folder: Path | None
) -> subprocess.Popen[bytes]:
    import subprocess  # 3 ms, which a container does not wait for

    try:
        # A group of its own: the time limit ends its children too, and Ctrl-C reaches us alone.
        return subprocess.Popen(
            words,
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            env=environment,
            cwd=folder,
            process_group=0,
        )
    except OSError as error:
        raise CommandError(f"{_shown(words)}: {error.strerror}", code=126) from error


def _wait(process: subprocess.Popen[bytes], timeout: float | None, outputs: list[int]) -> str:
    """Wait for the program's end; what went wrong with it, or nothing."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pidfd = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    problem = ""
    try:
        while not problem:
            left = 0.5 if deadline is None else min(0.5, deadline - time.monotonic())
            if poll.poll(max(0.0, left) * 1000):
                break
            if deadline is not None and time.monotonic() >= deadline:
                problem = f"no end after {timeout:g} s"
            elif any(os.fstat(file).st_size > _OUTPUT_LIMIT for file in outputs):
                problem = f"more than {_OUTPUT_LIMIT >> 20} MiB of output"
    finally:
        os.close(pidfd)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return problem


def _memory_file(name: str, text: str | None = None) -> int:
    """A file in memory: it never fills as a pipe does, and a daemon that keeps it delays nobody."""
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    if text:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(file, data) :]
        os.lseek(file, 0, os.SEEK_SET)
    return file


def _content(file: int) -> str:
    size = min(os.fstat(file).st_size, _OUTPUT_LIMIT)
    return os.pread(file, size, 0).decode(errors="replace")


def _shown(words: Sequence[str]) -> str:
    import shlex

    text = shlex.join([Path(words[0]).name, *words[1:]])
    return text if len(text) <= 200 else f"{text[:197]}..."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
