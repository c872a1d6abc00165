"""Keeps a session alive without its process: pinned in bpffs, described in the state folder.

The description holds the program's text; what cannot be read from the kernel is compiled from it
again. So a supervisor that was killed takes its probes over with all they have counted.
"""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path
from typing import Any

from bazaar.bpf import links, pins, programs
from bazaar.bpf import maps as kernel_maps
from bazaar.bpf.links import Link
from bazaar.bpf.maps import Map
from bazaar.errors import KernelError, StateError
from bazaar.host import files
from bazaar.trace.program import Compiled, compile  # noqa: A004 - what it does
from bazaar.trace.session import Session, link

_VERSION = 1
_HALF = "linking"  # where links are while their pins are made or taken away


def pin(session: Session, directory: str, description: Path) -> None:
    """Pin maps, programs and links below ``directory`` (in bpffs), and write the description.

    What was pinned there before is taken away first.
    """
    pins.remove_all(directory)
    for number, item in enumerate(session.kernel_maps.values()):
        item.pin(f"{directory}/maps/{number}")
    for number, program in enumerate(session.programs):
        program.pin(f"{directory}/programs/{number}")
    _pin_links(session, directory)
    options = session.compiled.options
    files.write_json(
        description,
        {
            "version": _VERSION,
            "digest": session.compiled.digest,
            "text": session.compiled.text,
            "parameters": list(options.parameters),
            "pid": options.pid,
            "child": options.child,
            "file": options.file,
            "restricted": list(options.containers),
            "finished": session.finished,
            "containers": {str(number): name for number, name in session.names.known.items()},
        },
    )


def pause(session: Session, directory: str) -> None:
    """Hear no more events; maps keep what they hold, and `resume` goes on."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{directory}/links", f"{directory}/{_HALF}")
    pins.remove_all(f"{directory}/{_HALF}")
    for attached in session.links:
        attached.close()
    session.links.clear()


def resume(session: Session, directory: str) -> None:
    """Attach again what was paused."""
    # Held while their names go: the last to let go waits for the kernel to detach them, and
    # it attaches no program twice.
    held = _open_links(f"{directory}/{_HALF}")
    pins.remove_all(f"{directory}/{_HALF}")
    for attached in held:
        attached.close()
    link(session)
    _pin_links(session, directory)


def _pin_links(session: Session, directory: str) -> None:
    """Pin all links, or none: ``links`` has its name once it is whole."""
    half = f"{directory}/{_HALF}"
    for number, attached in enumerate(session.links):
        attached.pin(f"{half}/{number}")
    os.makedirs(half, exist_ok=True)  # a program of BEGIN alone has none
    os.rename(half, f"{directory}/links")


def _open_links(folder: str) -> list[Link]:
    return [links.open_pinned(path) for path in sorted(glob.glob(f"{glob.escape(folder)}/*"))]


def adopt(directory: str, description: Path) -> Session | None:
    """Take over what ``pin`` left; None when nothing is there. What was paused goes on.

    Raises StateError when it cannot be understood (another version laid it out, or pins are
    missing): ``remove`` it and attach anew.
    """
    state = files.read_json(description)
    if state is None or not os.path.isdir(directory):
        return None
    try:
        compiled = compile(
            str(state["text"]),
            parameters=[str(one) for one in state["parameters"]],
            pid=int(state["pid"]),
            child=int(state["child"]),
            file=str(state["file"]),
            containers=[str(one) for one in state.get("restricted", ())],
        )
        known = {int(number): str(name) for number, name in state["containers"].items()}
        if state["version"] != _VERSION or state["digest"] != compiled.digest:
            raise _unknown(description)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown(description) from error
    try:
        session = _reopen(compiled, directory)
    except KernelError as error:
        raise _unknown(description) from error
    session.finished = bool(state.get("finished"))
    session.names = _names(known)
    return session


def _reopen(compiled: Compiled, directory: str) -> Session:
    """A session around what is pinned; KernelError when a piece of it is missing."""
    maps: dict[str, Map] = {}
    try:
        for number, (name, _) in enumerate(compiled.map_specs):
            maps[name] = kernel_maps.open_pinned(f"{directory}/maps/{number}")
        session = Session(compiled, maps)
    except BaseException:
        for item in maps.values():
            item.close()
        raise
    try:
        for number, plan in enumerate(compiled.plans):
            program = programs.open_pinned(f"{directory}/programs/{number}")
            session.programs.append(program)
            if plan.kind == "END":
                session.ends.append(program)
        if os.path.isdir(f"{directory}/links"):
            session.links += _open_links(f"{directory}/links")
        else:  # whoever paused it, or was about to go on, is gone
            resume(session, directory)
    except BaseException:
        session.close()
        raise
    return session


def _names(known: dict[int, str]) -> Any:
    from bazaar.host.identity import Names

    return Names(known=known)


def _unknown(description: Path) -> StateError:
    return StateError(
        f"{description}: another version of Bazaar attached the probe, or its state is damaged",
        hint="it is attached anew; what it counted is lost",
    )


def remove(directory: str, description: Path) -> None:
    """Take the pins and the description away; nothing there is no error."""
    pins.remove_all(directory)
    description.unlink(missing_ok=True)
