"""Reads a bazaar from a YAML or a Python file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from bazaar.errors import SpecError
from bazaar.model.problem import Problem
from bazaar.spec.model import Bazaar
from bazaar.spec.text import MOST_BYTES, parse
from bazaar.spec.validate import Findings, build, check


def load(
    path: str | os.PathLike[str],
    *,
    probes: bool = True,
    secrets: bool = False,
) -> Bazaar:
    """The bazaar that a ``.py`` or YAML file describes, checked and in its normal form.

    With ``probes`` the probes' programs are compiled too, with ``secrets`` those that are
    absent here are mistakes; only with ``clusters`` a site may be one. Raises SpecError with
    every mistake.
    """
    file = str(path)
    try:
        content = read_text(file)
    except ValueError as error:
        raise SpecError([Problem(str(error))]) from None
    if file.endswith(".py"):
        return _from_python(content, Path(file), probes=probes, secrets=secrets)
    folder = Path(file).absolute().parent
    return loads(content, file, folder=folder, probes=probes, secrets=secrets)


def loads(
    content: str,
    file: str = "",
    *,
    folder: Path | None = None,
    probes: bool = True,
    secrets: bool = False,
) -> Bazaar:
    """The bazaar that a YAML text describes; ``file`` is what messages call the text."""
    document = parse(content, file)
    findings = Findings(file, document.places, list(document.problems))
    folder = (folder or Path()).absolute()
    return build(document.value, findings, folder, probes=probes, secrets=secrets)


def read_text(file: str) -> str:
    """The text of a file of up to 1 MiB. Raises ValueError with the reason it cannot be read."""
    try:
        # Non-blocking, so that a named pipe does not hold us before it is refused.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as source:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{file} is no regular file")
            data = source.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"{file} is larger than {MOST_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start})") from None


def _from_python(content: str, path: Path, *, probes: bool, secrets: bool) -> Bazaar:
    """Run a Python file by itself and take the one Bazaar it defines."""
    file = str(path)
    space: dict[str, Any] = {"__name__": "__bazaar__", "__file__": str(path.absolute())}
    folder = path.absolute().parent
    sys.path.insert(0, str(folder))
    try:
        exec(compile(content, file, "exec"), space)  # noqa: S102  (the user's own program)
    except SpecError:
        raise
    except SyntaxError as error:
        problem = Problem(
            f"this is no Python: {error.msg}", file, error.lineno or 0, error.offset or 0
        )
        raise SpecError([problem]) from None
    except (Exception, SystemExit) as error:  # whatever the user's program raises is theirs
        line = _line_in(file, error)
        raise SpecError([Problem(f"{type(error).__name__}: {error}", file, line)]) from error
    finally:
        sys.path.remove(str(folder))
    found: dict[int, Bazaar] = {
        id(value): value for value in space.values() if isinstance(value, Bazaar)
    }
    if len(found) != 1:
        names = sorted(name for name, value in space.items() if isinstance(value, Bazaar))
        said = f"it defines {len(found)}: {', '.join(names)}" if found else "it defines none"
        raise SpecError(
            [Problem(f"a file holds exactly one Bazaar at its top level, and {said}", file)],
            hint='from bazaar import Bazaar, Service; mine = Bazaar("mine", services=[…])',
        )
    bazaar = next(iter(found.values()))
    return check(bazaar, folder=folder, file=file, probes=probes, secrets=secrets)


def _line_in(file: str, error: BaseException) -> int:
    """The last line of ``file`` that led to ``error``."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
