"""What `bazaar trace` does, without the command line library: it starts faster."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from bazaar.errors import BazaarError, MissingError, UsageError
from bazaar.model.record import record

if TYPE_CHECKING:
    from bazaar.trace import Output, Session


@record
class Settings:
    """The command line of `bazaar trace`."""

    text: str
    file: str = "program"
    parameters: Sequence[str] = ()
    command: str | None = None
    pid: int = 0
    duration: float | None = None
    json: bool = False
    containers: Sequence[str] = ()
    wire: bool = False  # for a Bazaar elsewhere, which ends it by closing its input


def fast_settings(arguments: Sequence[str]) -> Settings | None:
    """The settings of the plain form ``-e TEXT [-o json]``; None for all that needs more care."""
    text, json = None, False
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if option == "-e" and rest and text is None:
            text = rest.pop(0)
        elif option == "-o" and rest and rest[0] in ("json", "table"):
            json = rest.pop(0) == "json"
        else:
            return None
    return None if text is None else Settings(text, json=json)


def fast(arguments: Sequence[str]) -> int | None:
    """Run the plain form; None when the command line library has to look at it."""
    settings = fast_settings(arguments)
    if settings is None:
        return None
    try:
        code = run(settings)
        sys.stdout.flush()
    except (BazaarError, OSError) as error:
        from bazaar.cli.main import failed

        return failed(error)
    return code


def run(settings: Settings) -> int:
    """Compile, attach, print until it ends, and print the maps; the exit code."""
    from bazaar import trace

    if settings.pid and not os.path.exists(f"/proc/{settings.pid}"):
        raise UsageError(f"-p: there is no process {settings.pid}", hint="nothing was traced")
    if settings.containers and not settings.wire:
        _say_what_is_seen(settings.containers)
    with _stop_signals() as signals, _child(settings.command) as child:
        compiled = trace.compile(
            settings.text,
            parameters=settings.parameters,
            pid=settings.pid,
            child=child.pid if child else 0,
            file=settings.file,
            containers=settings.containers,
        )
        with trace.attach(compiled) as session:
            printer = _Wire(session) if settings.wire else _Printer(session, json=settings.json)
            printer.attached(compiled.probes)
            if child:
                child.start()
            _follow(session, printer, settings, signals, child)
            printer.print(session.finish())
            printer.end()
            return session.exit_code


def _say_what_is_seen(asked: Sequence[str]) -> None:
    """Where a container has a kernel of its own, ours sees the engine around it."""
    from bazaar.host.identity import Names
    from bazaar.trace import containers

    names = Names()
    names.refresh()
    shown = containers.running(names.known, asked)
    for engine, those in containers.hidden(shown).items():
        print(
            f"{', '.join(those)}: a kernel of its own ({engine}). Seen are the engine's system "
            "calls, threads and packets, not the application's system calls.",
            file=sys.stderr,
        )


def _follow(
    session: Session, printer: _Printer, settings: Settings, signals: int, child: _Child | None
) -> None:
    """Print what arrives until exit(), a signal, the command's end or the time's."""
    end = None if settings.duration is None else time.monotonic() + settings.duration
    waiting = select.poll()
    waiting.register(signals, select.POLLIN)
    if session.fileno() >= 0:
        waiting.register(session.fileno(), select.POLLIN)
    if child:
        waiting.register(child.pidfd, select.POLLIN)
    if settings.wire:
        waiting.register(0, select.POLLIN)
    printer.print(session.poll())
    while not session.finished:
        left = 1.0 if end is None else min(1.0, end - time.monotonic())
        if left <= 0:
            return
        # Once a second in any case: losses are told, and containers asked for while they live.
        ready = {descriptor for descriptor, _ in waiting.poll(int(left * 1000) + 1)}
        printer.print(session.poll())
        if ready & {signals, 0} or (child and child.pidfd in ready):
            return


class _Printer:
    def __init__(self, session: Session, *, json: bool) -> None:
        self.session = session
        self.json = json
        self.told = 0

    def attached(self, count: int) -> None:
        if self.json:
            print(f'{{"type": "attached_probes", "data": {{"probes": {count}}}}}', flush=True)
        else:
            print(f"Attaching {count} probe{'s' if count != 1 else ''}...", file=sys.stderr)

    def print(self, outputs: Sequence[Output]) -> None:
        from bazaar.trace import show

        if outputs:
            sys.stdout.write((show.outputs_json if self.json else show.outputs_text)(outputs))
            sys.stdout.flush()
        lost = self.session.losses.events
        if lost > self.told:
            self.lost(lost - self.told)
            self.told = lost

    def lost(self, count: int) -> None:
        if self.json:
            print(f'{{"type": "lost_events", "data": {{"events": {count}}}}}', flush=True)
        else:
            print(f"Lost {count} events", file=sys.stderr)

    def end(self) -> None:
        """All maps, and what did not find room in them."""
        from bazaar.trace import show

        maps = self.session.maps()
        sys.stdout.write(show.json(maps) if self.json else f"\n\n{show.text(maps)}")
        sys.stdout.flush()
        for name, count in self.session.losses.keys.items():
            if self.json:
                print(f'{{"type": "map_full", "data": {{"{name}": {count}}}}}', flush=True)
            else:
                print(f"{name} was full: {count} values were not kept", file=sys.stderr)


class _Wire(_Printer):
    """Says all in lines of JSON, for `up.cluster_trace` to put together."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, json=True)

    def attached(self, count: int) -> None:
        self._say(attached=count)

    def print(self, outputs: Sequence[Output]) -> None:
        from bazaar.trace import show

        for one in outputs:
            self._say(text=show.outputs_text([one]), json=show.outputs_json([one]))
        lost = self.session.losses.events
        if lost > self.told:
            self._say(lost=lost - self.told)
            self.told = lost

    def end(self) -> None:
        from bazaar.trace import wire

        maps = [wire.to_plain(item) for item in self.session.maps()]
        self._say(maps=maps, full=self.session.losses.keys)

    def _say(self, **what: object) -> None:
        import json

        print(json.dumps(what), flush=True)


@contextlib.contextmanager
def _stop_signals() -> Generator[int]:
    """A descriptor that becomes readable when somebody wants us to end."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {
        number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _ignore(number: int, frame: object) -> None:
    """The signal is read from the descriptor."""


class _Child:
    """A command that waits, forked, until everything is attached."""

    def __init__(self, command: str) -> None:
        import shlex

        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"-c: the command cannot be read: {error}") from error
        if not words:
            raise UsageError("-c: the command is empty")
        from bazaar.host.commands import which

        if which(words[0]) is None:
            missing = MissingError(f"-c: {words[0]}: not found", hint="nothing was traced")
            missing.exit_code = 127
            raise missing
        gate, self.gate = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self._become(words, gate)
        os.close(gate)
        self.pidfd = os.pidfd_open(self.pid)
        self.ended = False

    def _become(self, words: list[str], gate: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(self.gate)
            if os.read(gate, 1):
                os.execvp(words[0], words)  # noqa: S606 - there is no shell, and none is wanted
        except OSError as error:
            print(f"bazaar: {words[0]}: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)

    def start(self) -> None:
        """Everything is attached: the command runs."""
        os.write(self.gate, b"!")
        os.close(self.gate)
        self.gate = -1

    def close(self) -> None:
        """End the command if it still runs, and collect it."""
        if self.gate >= 0:
            os.close(self.gate)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)


@contextlib.contextmanager
def _child(command: str | None) -> Generator[_Child | None]:
    child = _Child(command) if command is not None else None
    try:
        yield child
    finally:
        if child:
            child.close()
