"""The command line's side: what is there, who supervises it, and how to reach him."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bazaar.errors import BazaarError, MissingError, StateError, UsageError
from bazaar.host import paths
from bazaar.host.files import read_json
from bazaar.spec.resolved import ResolvedBazaar, from_json
from bazaar.up import rpc
from bazaar.up.daemon import socket_path
from bazaar.up.plan import Current


def running() -> list[str]:
    """The names of all bazaars that were made on this machine and not taken down since."""
    folder = paths.state() / "bazaars"
    return sorted(
        entry.name for entry in folder.glob("*") if entry.is_dir() and has_state(entry.name)
    )


def has_state(bazaar: str) -> bool:
    """Whether a bazaar was made here, or begun to be, and not taken down since."""
    # The log comes with the supervisor, before it is told anything.
    names = ("wanted.json", "layout.json", "supervisor.log")
    return any((paths.bazaar(bazaar) / name).exists() for name in names)


def _has_volumes(bazaar: str) -> bool:
    """Whether a bazaar that is down left volumes: they can be looked at and removed by name."""
    return "/" not in bazaar and (paths.bazaar(bazaar) / "volumes").is_dir()


def the_one(name: str | None, way: str = "--bazaar NAME") -> str:
    """The bazaar meant: the named one, or the only one that is up.

    ``name`` may be a bazaar's name or a description's file; ``way`` is how the command
    takes it, for the hint. Raises UsageError otherwise.
    """
    names = running()
    if name is not None:
        if name in names or _has_volumes(name):
            return name
        if Path(name).exists():
            from bazaar import spec

            return spec.load(name, probes=False).name
        raise UsageError(
            f"there is no bazaar '{name}' here" + (f"; up: {', '.join(names)}" if names else ""),
            hint="name one that is up, or its file; `bazaar list` shows what there is",
        )
    if len(names) == 1:
        return names[0]
    if not names:
        left = [entry.parent.name for entry in (paths.state() / "bazaars").glob("*/volumes")]
        kept = f"; volumes are kept of {', '.join(sorted(left))}" if left else ""
        raise UsageError(f"no bazaar is up here{kept}", hint="`bazaar up FILE` starts one")
    raise UsageError(
        f"several bazaars are up: {', '.join(names)}",
        hint=f"say which one by {way}; `bazaar list` shows them",
    )


def need_root() -> None:
    """Raises MissingError for whoever may not make namespaces, mounts and BPF programs."""
    if os.geteuid() != 0:
        raise MissingError(
            "a local site needs root: network namespaces, mounts and BPF programs",
            hint="run the same with sudo",
        )


def call(
    bazaar: str,
    method: str,
    parameters: dict[str, Any] | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    timeout: float | None = 30,
) -> Any:
    """Call the bazaar's supervisor. Raises StateError when none answers."""
    try:
        return rpc.call(socket_path(bazaar), method, parameters, on_event, timeout)
    except (ConnectionError, TimeoutError, PermissionError) as error:
        raise StateError(
            f"bazaar {bazaar}: its supervisor does not answer: {error}",
            hint=f"`bazaar up` starts it again; its log is {paths.bazaar(bazaar)}/supervisor.log",
        ) from error


def supervision(bazaar: str) -> tuple[bool, bool]:
    """Whether a supervisor answers, and whether it has a guardian that would start it again."""
    try:
        answer = rpc.call(socket_path(bazaar), "ping", timeout=5)
    except (OSError, BazaarError):
        return False, False
    return True, bool(answer.get("guarded"))


def ensure_supervisor(bazaar: str, patience: float = 15.0) -> None:
    """Start the supervisor unless one answers that has a guardian."""
    if all(supervision(bazaar)):
        return
    folder = paths.bazaar(bazaar)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = folder / "supervisor.log"
    chosen = {
        "BAZAAR_STATE": str(paths.state()),
        "BAZAAR_CACHE": str(paths.cache()),
    }
    with log.open("ab") as output:
        log.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "bazaar", "supervise", bazaar],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            # What was relative to our folder is not so to its.
            env={**os.environ, **{key: chosen[key] for key in chosen if key in os.environ}},
            start_new_session=True,
        )
    deadline = time.monotonic() + patience
    while not all(supervision(bazaar)):
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process)
            words = log.read_text(errors="replace").splitlines()[-1:] or ["it said nothing"]
            raise StateError(
                f"bazaar {bazaar}: its supervisor did not start: {words[0]}", hint=f"see {log}"
            )
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A supervisor that does not come up is not to go on trying behind the user's back."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def current(bazaar: str) -> Current:
    """What is there now, read from the kernel, the containers and the state folder."""
    from bazaar.run import containers
    from bazaar.site import network

    folder = paths.bazaar(bazaar)
    volumes = folder / "volumes"
    seen = network.observed(bazaar)
    found = [c for c in containers.listing() if dict(c.labels).get("bazaar") == bazaar]
    supervised, guarded = supervision(bazaar)
    return Current(
        applied=last_wanted(bazaar, "applied.json"),
        subnet=seen.subnet,
        sites=frozenset(seen.sites),
        cut_off=frozenset(name for name, site in seen.sites.items() if not site.joined),
        containers=tuple(found),
        volumes=frozenset(entry.name for entry in volumes.glob("*")),
        supervised=supervised,
        guarded=guarded,
    )


def last_wanted(bazaar: str, file: str = "wanted.json") -> ResolvedBazaar | None:
    """What was asked for the last time; None when nothing was, or it is unreadable."""
    try:
        stored = read_json(paths.bazaar(bazaar) / file)
        return from_json(stored) if stored is not None else None
    except StateError:
        # A file cut short: the kernel and the containers tell what is there.
        return None


def read_secrets(wanted: ResolvedBazaar) -> dict[str, dict[str, str]]:
    """The values of all secrets, by service and variable. Raises MissingError for absent ones."""
    from bazaar.spec import secrets

    values: dict[str, dict[str, str]] = {}
    for service in wanted.services:
        for secret in service.secrets:
            try:
                value = secrets.read(secret.kind, secret.source)
            except ValueError as error:
                where = f"services.{service.name}.environment.{secret.variable}"
                raise MissingError(f"{where}: {error}") from None
            values.setdefault(service.name, {})[secret.variable] = value
    return values
