"""The one tree of exceptions.

A message says what failed, on which object and why; ``hint`` says what to do next.
The command line prints both, without a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Sequence


class BazaarError(Exception):
    """The root: everything Bazaar raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(BazaarError):
    """The command or call was worded wrongly; nothing was tried."""

    exit_code = 2


class SpecError(BazaarError):
    """A bazaar's description is wrong; holds every `Problem` found, not the first alone."""

    exit_code = 2

    def __init__(self, problems: Sequence[object], *, hint: str | None = None) -> None:
        count = len(problems)
        summary = f"{count} error{'s' if count != 1 else ''}, nothing was changed."
        super().__init__("\n".join([*map(str, problems), summary]), hint=hint)
        self.problems = problems


class TraceError(BazaarError):
    """A trace program is wrong or asks for what this kernel lacks; points into its text."""

    def __init__(
        self,
        message: str,
        *,
        line: int = 0,
        column: int = 0,
        length: int = 1,
        source: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.line = line
        self.column = column
        self.length = length
        self.source = source

    def __str__(self) -> str:
        lines = [f"{self.line}:{self.column}  {self.message}" if self.line else self.message]
        text = self.source.splitlines()
        if 0 < self.line <= len(text):
            lines.append(f"     {text[self.line - 1]}")
            lines.append("     " + " " * (self.column - 1) + "^" * max(1, self.length))
        if self.hint:
            lines.append(f"     {self.hint}")
        return "\n".join(lines)


class MissingError(BazaarError):
    """This machine lacks something: a program, a privilege, a kernel feature."""


class ChecksumError(BazaarError):
    """What was downloaded is not what its checksum says: it was thrown away."""


class KernelError(BazaarError):
    """A system call failed; ``errno`` is the kernel's own."""

    def __init__(self, message: str, *, errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


class VerifierError(KernelError):
    """The kernel's verifier refused a BPF program; ``log`` is all it said.

    ``file``, ``line`` and ``column`` are the user's; line 0 means no line is known.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int = 0,
        log: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, errno=errno, hint=hint)
        self.log = log
        self.file = file
        self.line = line
        self.column = column


class BtfError(BazaarError):
    """BTF data is malformed, or names no such type."""


class CompileError(BazaarError):
    """A Python function cannot become a BPF program; points at its source line."""

    def __init__(
        self,
        message: str,
        *,
        file: str = "",
        line: int = 0,
        column: int = 0,
        hint: str | None = None,
    ) -> None:
        place = f"{file}:{line}:{column + 1}: " if file else ""
        super().__init__(place + message, hint=hint)
        self.file = file
        self.line = line
        self.column = column


class CommandError(BazaarError):
    """A program we called failed; ``code`` is its exit code, ``output`` what it said."""

    def __init__(
        self, message: str, *, code: int = 1, output: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.output = output


class ImageError(BazaarError):
    """An image cannot be found, made, pulled or unpacked."""


class EngineError(BazaarError):
    """A container engine could not do what was asked; docker's exit code for it is 125."""

    exit_code = 125


class NetworkError(BazaarError):
    """A namespace, address, route or balancer could not be set up."""


class StateError(BazaarError):
    """Stored state is unreadable or contradicts what runs."""


class LockedError(StateError):
    """Somebody else is changing this right now; the message names who."""


class RemoteError(BazaarError):
    """Something about a machine elsewhere failed; ``machine`` is its name."""

    def __init__(self, message: str, *, machine: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.machine = machine


class UnreachableError(RemoteError):
    """A machine does not answer, or the connection to it was lost."""


class HostKeyError(RemoteError):
    """A machine showed another host key than the known one, or none is known."""


class RefusedError(RemoteError):
    """A machine does not let us in: its user or our key is not accepted."""


class ScriptError(RemoteError):
    """A script failed on a machine or took too long; ``output`` and ``errors`` are its words."""

    def __init__(
        self,
        message: str,
        *,
        machine: str = "",
        code: int = 1,
        output: str = "",
        errors: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, machine=machine, hint=hint)
        self.code = code
        self.output = output
        self.errors = errors


class ClusterError(BazaarError):
    """A cluster could not become what it is to be; names the machines and what they said."""


class MachineError(BazaarError):
    """A local machine could not be made, started or taken away."""
