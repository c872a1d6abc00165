"""Other machines over SSH: scripts, files and trees, many sessions over one connection.

The only place that knows asyncssh, which takes a sixth of a second to import: import this
module where it is used. Host keys are known beforehand or refused; nothing is read from
``~/.ssh/config``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import IO, Any

import asyncssh

from bazaar.errors import (
    HostKeyError,
    RefusedError,
    ScriptError,
    UnreachableError,
)
from bazaar.host import files, trees
from bazaar.model.machine import Machine
from bazaar.model.record import record

SESSIONS = 8  # at once: sshd's own MaxSessions is 10
OUTPUT_LIMIT = 64 << 20  # bytes; a script that says more than this has lost its way
_STREAMS = 4  # for one tree
_CHUNK = 256 << 10
_GRACE = 10.0  # seconds for a script's end to arrive, past its time limit
_TIMED_OUT = (124, 137)  # timeout(1): ended by it; killed by it


@record
class Result:
    """What a script left behind."""

    code: int
    output: str
    errors: str
    seconds: float


@contextlib.asynccontextmanager
async def connect(machine: Machine, *, timeout: float = 15.0) -> AsyncGenerator[Connection]:
    """A connection to a machine, through its jump host where it has one.

    Raises UnreachableError, HostKeyError or RefusedError; each names the machine that it is
    about, which may be the jump host.
    """
    async with contextlib.AsyncExitStack() as opened:
        tunnel: asyncssh.SSHClientConnection | None = None
        if machine.jump is not None:
            between = await opened.enter_async_context(connect(machine.jump, timeout=timeout))
            tunnel = between.ssh
        ssh = await _open(machine, tunnel, timeout)
        try:
            yield Connection(machine, ssh)
        finally:
            ssh.close()
            with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
                async with asyncio.timeout(2):
                    await ssh.wait_closed()


class Connection:
    """One connection; its methods may be called at the same time. `connect` makes it."""

    def __init__(self, machine: Machine, ssh: asyncssh.SSHClientConnection) -> None:
        self.machine = machine
        self.ssh = ssh
        self._sessions = asyncio.Semaphore(SESSIONS)

    async def run(
        self,
        script: str,
        *,
        timeout: float = 60.0,
        check: bool = True,
        root: bool = False,
        shell: str = "sh",
        what: str = "the script",
    ) -> Result:
        """Run a script in one session: nothing of it appears in the machine's list of processes.

        It gets no input, and is ended on the machine, with all it started, after ``timeout``
        seconds. A script that arrives in part, since the connection broke, does nothing. With
        ``root`` it runs by sudo where the user is another one. Raises ScriptError when it takes
        too long or, with ``check``, ends with anything but 0; ``what`` is its name there.
        """
        # As one compound command it is read to its end first, and its programs cannot eat it.
        text = f"{{\n{script}\n}} </dev/null\n".encode()
        command = f"timeout -k 5 {timeout:g} env LC_ALL=C.UTF-8 {shell} -s"
        result = await self._call(self._by(command, root), _once(text), timeout, what)
        if check and result.code != 0:
            raise self._failure(result, what)
        return result

    async def stream(
        self, command: str, stop: asyncio.Event, *, root: bool = False, what: str = "the command"
    ) -> AsyncGenerator[bytes]:
        """The lines that a command says, as it says them; its input ends once ``stop`` is set.

        Raises ScriptError where it ends with anything but 0.
        """
        began = time.monotonic()
        try:
            async with self._sessions:
                process = await self._session(self._by(command, root))
                with contextlib.closing(process):
                    ending = asyncio.create_task(_end_with(stop, process.stdin))
                    errors = asyncio.create_task(self._read(process.stderr, what))
                    try:
                        while line := await process.stdout.readline():
                            yield line
                        said = await errors
                        await process.wait_closed()
                    finally:
                        ending.cancel()
                        errors.cancel()
        except (asyncssh.Error, OSError) as error:
            raise self._lost(what, str(error)) from error
        if process.returncode:
            text, seconds = said.decode(errors="replace"), time.monotonic() - began
            raise self._failure(Result(process.returncode, "", text, seconds), what)

    async def send(
        self, source: Path, target: str, *, root: bool = False, timeout: float = 600.0
    ) -> int:
        """Copy a file to the path ``target``, or a folder's content into the folder ``target``.

        Files that are there already, with this content and mode, are not sent again. What is
        there besides stays. All of it belongs to whom it is copied by. Returns the bytes of the
        files sent. What lies deepest is written first: a file on top tells that all below is there.
        Raises ScriptError where the machine cannot take it.
        """
        folder, entries = trees.entries(source, target)
        there = await self.run(
            trees.look(folder, entries), timeout=timeout, root=root, what=f"reading {folder}"
        )
        wanted = await asyncio.to_thread(trees.differing, entries, there.output)
        if not wanted:
            return 0
        # One session carries no more than its window in a round trip: large files go by several.
        *large, rest = trees.shared_out(wanted, _STREAMS)
        what = f"writing {target}"
        await asyncio.gather(*(self._unpack(part, folder, timeout, what, root) for part in large))
        await self._unpack(rest, folder, timeout, what, root)
        return sum(entry.size for entry in wanted)

    async def _unpack(
        self, part: list[trees.Entry], folder: str, timeout: float, what: str, root: bool
    ) -> None:
        place = shlex.quote(folder)
        inner = f"mkdir -p -- {place} && exec tar -xpf - --no-same-owner -C {place}"
        command = self._by(f"env LC_ALL=C.UTF-8 sh -c {shlex.quote(inner)}", root)
        result = await self._call(command, trees.packed(part), timeout, what)
        if result.code != 0:
            raise self._failure(result, what)

    async def fetch(
        self, source: str, target: Path, *, root: bool = False, timeout: float = 600.0
    ) -> int:
        """Copy the machine's file ``source`` to ``target``, whole or not at all; its size.

        Raises StateError where ``target`` cannot be written.
        """
        what = f"reading {source}"
        part = target.with_name(f".{target.name}.part")
        command = self._by(f"cat -- {shlex.quote(source)}", root)
        with files.writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(part, "wb", opener=_private) as file:
                    result = await self._call(command, _once(b""), timeout, what, file)
                    if result.code != 0:
                        raise self._failure(result, what)
                    file.flush()
                    os.fsync(file.fileno())
                    size = file.tell()
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        return size

    def _by(self, command: str, root: bool) -> str:
        return f"sudo -n {command}" if root and self.machine.user != "root" else command

    async def _session(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        """A session that runs a command; waits where the machine has as many as it allows.

        sshd counts those, too, whose end it has told us but not seen to itself.
        """
        pause = 0.01
        while True:
            try:
                return await self.ssh.create_process(command, encoding=None)
            except asyncssh.ChannelOpenError:
                if pause > 2 or self.ssh.is_closed():
                    raise
                await asyncio.sleep(pause)
                pause *= 2

    async def _call(
        self,
        command: str,
        source: AsyncIterator[bytes],
        timeout: float,
        what: str,
        sink: IO[bytes] | None = None,
    ) -> Result:
        """Run a command: feed it, read what it says at the same time, wait for its end."""
        began = time.monotonic()
        async with self._sessions:
            try:
                async with asyncio.timeout(timeout + _GRACE):
                    process = await self._session(command)
                    with contextlib.closing(process):
                        _, output, errors = await asyncio.gather(
                            _feed(process.stdin, source),
                            self._read(process.stdout, what, sink),
                            self._read(process.stderr, what),
                        )
                        await process.wait_closed()
            except TimeoutError:
                raise ScriptError(
                    f"{self.machine}: {what}: no end after {timeout:g} s",
                    machine=self.machine.name,
                    code=_TIMED_OUT[0],
                ) from None
            except (asyncssh.Error, OSError) as error:
                raise self._lost(what, str(error)) from error
        seconds = time.monotonic() - began
        if process.returncode is None:
            raise self._lost(what, "no exit code came")
        result = Result(
            process.returncode,
            output.decode(errors="replace"),
            errors.decode(errors="replace"),
            seconds,
        )
        if result.code in _TIMED_OUT and seconds >= timeout:
            raise self._failure(result, what, f"no end after {timeout:g} s")
        return result

    async def _read(
        self, stream: asyncssh.SSHReader[bytes], what: str, sink: IO[bytes] | None = None
    ) -> bytes:
        kept = bytearray()
        while chunk := await stream.read(_CHUNK):
            if sink is not None:
                with files.writing(Path(sink.name)):
                    sink.write(chunk)
            elif len(kept) + len(chunk) > OUTPUT_LIMIT:
                reason = f"more than {OUTPUT_LIMIT >> 20} MiB of output"
                raise ScriptError(f"{self.machine}: {what}: {reason}", machine=self.machine.name)
            else:
                kept += chunk
        return bytes(kept)

    def _failure(self, result: Result, what: str, reason: str = "") -> ScriptError:
        said = (result.errors.strip() or result.output.strip()).splitlines()
        how = f"exit {result.code}" if result.code >= 0 else f"killed by signal {-result.code}"
        ended = f"{how} after {result.seconds:.1f} s"
        told = [line.strip() for line in said if "Exiting with failure status" not in line]  # tar
        last = told[-1] if told else ""
        return ScriptError(
            f"{self.machine}: {what}: {reason or ended}{f': {last}' if last else ''}",
            machine=self.machine.name,
            code=result.code,
            output=result.output,
            errors=result.errors,
            hint=self._advice(result.errors),
        )

    def _advice(self, errors: str) -> str | None:
        if errors.startswith("sudo: "):
            return f"let {self.machine.user} use sudo without a password, or connect as root"
        if "no space left" in errors.lower() or ("tar: " in errors and "Wrote only" in errors):
            return f"free space on {self.machine.name}, and run the same again"
        return None

    def _lost(self, what: str, reason: str) -> UnreachableError:
        return UnreachableError(
            f"{self.machine}: {what}: the connection was lost: {reason}",
            machine=self.machine.name,
            hint="what it was at may have been done in part; run the same again",
        )


def make_key(path: Path, comment: str) -> str:
    """Make a key pair, ``path`` (mode 0600) and ``path``.pub; the public key's line."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment)  # pyright: ignore[reportUnknownMemberType]
    line = key.export_public_key().decode().strip()
    files.write_atomic(path, key.export_private_key())
    files.write_atomic(path.with_name(f"{path.name}.pub"), f"{line}\n", 0o644)
    return line


class _Client(asyncssh.SSHClient):
    """Notes which key a machine showed that is not the known one; it is refused."""

    shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key
        return False


async def _open(
    machine: Machine, tunnel: asyncssh.SSHClientConnection | None, timeout: float
) -> asyncssh.SSHClientConnection:
    client = _Client()
    known = Path(machine.known_hosts or "~/.ssh/known_hosts").expanduser()
    keys = _keys(machine)
    try:
        async with asyncio.timeout(timeout):
            return await asyncssh.connect(
                machine.address,
                machine.port,
                username=machine.user,
                known_hosts=str(known) if known.exists() else b"",
                client_factory=lambda: client,
                tunnel=tunnel or (),
                config=None,
                preferred_auth="publickey",
                keepalive_interval=10,
                **keys,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _wrong_key(machine, known, client.shown, error) from error
    except asyncssh.PermissionDenied as error:
        raise RefusedError(
            f"{machine} does not let {machine.user} in: {error.reason}",
            machine=machine.name,
            hint=f"is {f'{machine.key}.pub' if machine.key else 'your public key'} in "
            f"~{machine.user}/.ssh/authorized_keys there?",
        ) from error
    except (TimeoutError, OSError, asyncssh.Error) as error:
        raise _unreachable(machine, timeout, error) from error


def _keys(machine: Machine) -> dict[str, Any]:
    """What to show who we are by; a key that is named is the only one tried.

    An agent's others would use up the attempts that a server allows.
    """
    if not machine.key:
        return {}
    try:
        return {"client_keys": [asyncssh.read_private_key(machine.key)], "agent_path": None}
    except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RefusedError(
            f"{machine}: the key {machine.key} cannot be used: {reason}",
            machine=machine.name,
            hint="name a private key without a passphrase, or none and have it in ssh-agent",
        ) from error


def _wrong_key(
    machine: Machine, known: Path, shown: asyncssh.SSHKey | None, error: asyncssh.DisconnectError
) -> HostKeyError:
    name = machine.name
    if shown is None:
        return HostKeyError(f"{machine}: its host key is refused: {error.reason}", machine=name)
    place = machine.address if machine.port == 22 else f"[{machine.address}]:{machine.port}"
    try:
        lines = asyncssh.match_known_hosts(str(known), machine.address, "", machine.port)
    except (OSError, ValueError):
        lines = ((),)
    if lines[0]:
        what = "another host key than the known one"
        advice = (
            f"if the machine was made anew, take its old line out of {known};\n"
            "if it was not, somebody is in between"
        )
    else:
        what = "a host key that is not known"
        line = " ".join(shown.export_public_key().decode().split()[:2])
        advice = (
            "if `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says the same there,\n"
            f"add this line to {known}:\n{place} {line}"
        )
    return HostKeyError(
        f"{machine} shows {what}: {shown.get_fingerprint()}", machine=name, hint=advice
    )


def _unreachable(machine: Machine, timeout: float, error: Exception) -> UnreachableError:
    if isinstance(error, TimeoutError):
        reason = f"no answer within {timeout:g} s"
    else:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number and number > 0 else str(error)
    by = f" through {machine.jump}" if machine.jump is not None else ""
    return UnreachableError(
        f"{machine} cannot be reached at port {machine.port}{by}: {reason}",
        machine=machine.name,
        hint="is it up, and may this machine connect to it? `ssh -v` says more",
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _end_with(stop: asyncio.Event, stdin: asyncssh.SSHWriter[bytes]) -> None:
    await stop.wait()
    stdin.write_eof()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _feed(stdin: asyncssh.SSHWriter[bytes], source: AsyncIterator[bytes]) -> None:
    # One that ends before it has read all says why by its exit code.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, asyncssh.Error):
        async for chunk in source:
            stdin.write(chunk)
            await stdin.drain()
        stdin.write_eof()
