"""Containers in the foreground: the caller's streams, signals and exit code are theirs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

from bazaar.errors import EngineError
from bazaar.host import processes
from bazaar.model.container import ContainerSpec
from bazaar.run import bundle, containers, gate, launch, rootfs
from bazaar.run.streams import Streams, Terminal
from bazaar.typed import Any, Protocol

# Everything a program may want to hear; what the terminal's driver and children cause stays ours.
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGALRM,
)


class Network(Protocol):
    """A container's network, made while its engine starts."""

    def begin(self) -> None:
        """Make its namespace. Raises NetworkError."""

    def complete(self) -> None:
        """Make the rest. Raises NetworkError."""


def foreground(
    spec: ContainerSpec,
    *,
    stdin: bool = False,
    remove: bool = True,
    network: Network | None = None,
) -> int:
    """Run a container until it ends; its exit code, 128 + n where a signal ended it.

    ``stdin``: pass ours on, until its end; else the container reads nothing. Nothing runs in
    it before all of ``network`` is there. Must be called from the main thread of a process
    without children: it takes signals and reaps. Raises EngineError, with docker's exit codes
    125 to 127, when the container could not be started, NetworkError for its network.
    """
    processes.become_subreaper()
    asked = containers.prepare(spec, owner=os.getpid(), gated=network is not None)
    try:
        if network is not None:
            network.begin()
        bundle.check_namespace(spec)
        code = _run(spec, asked, network, stdin=stdin)
    except BaseException:
        containers.discard(spec.id)
        raise
    if remove:
        containers.discard(spec.id, settled=True)
    return code


def _run(spec: ContainerSpec, asked: launch.Launch, network: Network | None, *, stdin: bool) -> int:
    terminal = Terminal(Path(asked.folder)) if spec.terminal else None
    streams = None if terminal else Streams(stdin=stdin, carry_files=spec.engine == "gvisor")
    with _Forwarder() as forwarder:
        try:
            with _meanwhile(asked, network) as meanwhile:
                if streams is not None:
                    pid = launch.start(asked, streams.descriptors, meanwhile=meanwhile)
                else:
                    assert terminal is not None
                    pid = _with_terminal(asked, terminal, meanwhile)
            forwarder.target = pid
            _record(asked, pid)
            if streams is not None:
                streams.started()
            forwarder.catch_up()
            status = launch.reap(pid)
            forwarder.target = 0
        finally:
            if terminal is not None:
                terminal.finish()
        code = launch.exit_code(asked, status)
        launch.store(Path(asked.folder), "exit.json", {"code": code})
        if streams is not None:
            streams.finish()
        launch.settle(asked, parent=True)
    return code


def _meanwhile(
    asked: launch.Launch, network: Network | None
) -> AbstractContextManager[Callable[[], None] | None]:
    """What is to be done while the engine starts."""
    if network is None:
        return contextlib.nullcontext()
    return gate.opened_by(Path(asked.folder), network.complete)


def _with_terminal(
    asked: launch.Launch, terminal: Terminal, meanwhile: Callable[[], None] | None
) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        # The engine connects while it starts, and goes on without waiting for us to accept.
        pid = launch.start(asked, (null, null, null), console=terminal.path, meanwhile=meanwhile)
    finally:
        os.close(null)
    terminal.receive()
    return pid


def _record(asked: launch.Launch, pid: int) -> None:
    import time

    found = processes.identify(pid)
    launch.store(
        Path(asked.folder),
        "process.json",
        {
            "boot": launch.boot_id(),
            "pid": pid,
            "start": found.start if found else 0,
            "shim": 0,
            "shim_start": 0,
            "started_at": time.time(),
        },
    )


class _Forwarder:
    """Passes the signals we get to the container; keeps those that come before it runs."""

    def __init__(self) -> None:
        self.target = 0
        self.early: list[int] = []
        self.saved: dict[int, Any] = {}

    def __enter__(self) -> _Forwarder:
        for number in FORWARDED:
            self.saved[number] = signal.signal(number, self._pass)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.saved.items():
            signal.signal(number, handler)

    def _pass(self, number: int, _: FrameType | None) -> None:
        if not self.target:
            self.early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.target, number)

    def catch_up(self) -> None:
        """Deliver what came while the container was being started."""
        for number in self.early:
            self._pass(number, None)
        self.early.clear()


def execute(
    container: str,
    command: Sequence[str],
    *,
    terminal: bool = False,
    stdin: bool = False,
    environment: Sequence[tuple[str, str]] = (),
    user: str | None = None,
    working_directory: str | None = None,
) -> int:
    """Run ``command`` inside a running container with our streams; its exit code.

    126 and 127 as `bazaar run` has them. Raises EngineError when the container does not run.
    """
    found = containers.state(container)
    place = containers.folder(container)
    asked = launch.read(place)
    if found is None or asked is None:
        raise EngineError(f"there is no container {container}", hint="`bazaar ps --all` lists them")
    if found.status != "running":
        raise EngineError(
            f"{found.name} is {found.status}", hint="only a running container can execute something"
        )
    try:
        process = json.loads((place / "config.json").read_text())["process"]
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{place}/config.json is unreadable: {error}") from error
    process["args"] = list(command)
    process["terminal"] = terminal
    variables = {
        name: value for name, _, value in (entry.partition("=") for entry in process["env"])
    }
    if user is not None:
        who = rootfs.user(place / "rootfs", user)
        process["user"] = {"uid": who.uid, "gid": who.gid, "additionalGids": list(who.groups)}
        held: list[str] = process["capabilities"]["bounding"] if who.uid == 0 else []
        process["capabilities"] |= {"effective": held, "permitted": held}
        variables["HOME"] = who.home
    if terminal:
        variables.setdefault("TERM", os.environ.get("TERM", "xterm"))
    variables |= dict(environment)
    process["env"] = [f"{name}={value}" for name, value in variables.items()]
    if working_directory is not None:
        process["cwd"] = working_directory
    with _exec_files(place, process) as (file, log):
        prefix = [*asked.command]
        prefix[prefix.index("--log") + 1] = str(log)
        return _execute(
            asked,
            [*prefix, "exec", "--process", str(file)],
            place,
            log.name,
            terminal=terminal,
            stdin=stdin,
        )


@contextlib.contextmanager
def _exec_files(place: Path, process: dict[str, Any]) -> Generator[tuple[Path, Path]]:
    file, log = (place / f"exec-{os.getpid()}.{kind}" for kind in ("json", "log"))
    try:
        bundle.private(file, json.dumps(process))
        yield file, log
    finally:
        file.unlink(missing_ok=True)
        log.unlink(missing_ok=True)


def _execute(
    asked: launch.Launch,
    arguments: list[str],
    place: Path,
    log: str,
    *,
    terminal: bool,
    stdin: bool,
) -> int:
    groups: tuple[str, ...] = ()
    if asked.engine == "shared":
        groups = asked.cgroups  # what the engine forks stays in the container's v2 group
    if terminal:
        status = _on_terminal(asked, arguments, place, log, groups)
    else:
        streams = Streams(stdin=stdin, carry_files=asked.engine == "gvisor")
        try:
            with _Forwarder() as forwarder:
                child = launch.spawn([*arguments, asked.engine_id], streams.descriptors, groups)
                forwarder.target = child
                streams.started()
                _, status = os.waitpid(child, 0)
                forwarder.target = 0
        finally:
            streams.finish()
    code = processes.exit_code(status)
    if code in (1, 128, 255):
        # The engine's own failure looks like an exit code; its log tells them apart.
        problem = launch.failure(asked, code, log)
        if "no word" not in problem.message:
            raise problem
    return code


def _on_terminal(
    asked: launch.Launch, arguments: list[str], place: Path, log: str, groups: tuple[str, ...]
) -> int:
    """Execute on a terminal of the engine's making; the wait status.

    Engines hand a terminal over only where they do not wait: what they leave becomes our child.
    """
    processes.become_subreaper()
    console = Terminal(place, f"console-{os.getpid()}")
    pid_file = place / f"exec-{os.getpid()}.pid"
    words = ["--detach", "--pid-file", str(pid_file), "--console-socket", str(console.path)]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with _Forwarder() as forwarder:
            child = launch.spawn([*arguments, *words, asked.engine_id], (null, null, null), groups)
            _, status = os.waitpid(child, 0)
            if status != 0:
                raise launch.failure(asked, processes.exit_code(status), log)
            forwarder.target = int(pid_file.read_text())
            console.receive()
            forwarder.catch_up()
            status = launch.reap(forwarder.target)
            forwarder.target = 0
        return status
    finally:
        os.close(null)
        console.finish()
        pid_file.unlink(missing_ok=True)
