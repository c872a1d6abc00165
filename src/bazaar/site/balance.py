"""The balance: one HAProxy per bazaar, in the front's namespace.

Replicas come, go and drain through HAProxy's runtime commands; it is reloaded, handing its
listeners to the new worker, only when something else changes. What runs is read back from
HAProxy itself; `applied.json` holds what cannot be: the words of each server's line.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import resource
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bazaar.errors import NetworkError, StateError
from bazaar.host import files, namespaces, paths
from bazaar.host.processes import Identity
from bazaar.model.site import BackendStatus, Front
from bazaar.site import configuration, daemons, haproxy, network, ports, runtime
from bazaar.site.configuration import Server, Settings
from bazaar.site.naming import front_namespace, host_name


@dataclass(frozen=True, slots=True)
class _Applied:
    """What the last finished `apply` left running."""

    structure: str = ""  # digest
    options: dict[str, str] = field(default_factory=dict[str, str])  # by server path
    published: tuple[tuple[str, int], ...] = ()


def apply(bazaar: str, fronts: Sequence[Front], *, drain_seconds: float = 5.0) -> None:
    """Make the balance serve exactly ``fronts``, without losing a request.

    Replicas that left get nothing new, and at most ``drain_seconds`` to finish what they
    have. A new one gets traffic once it has answered its first check. NetworkError when a
    port is taken or HAProxy refuses; what served before then serves on.
    """
    if not fronts:
        stop(bazaar)
        return
    with _locked(bazaar) as folder:
        settings = _settings(bazaar, fronts)
        text = configuration.render(settings, fronts)
        wanted = configuration.servers(fronts)
        master = haproxy.answering(bazaar, folder)
        applied = _read_applied(folder) if master else _Applied()
        _check_ports(bazaar, fronts, applied)
        network.ensure_addresses(bazaar, [front.address for front in fronts])
        if settings.host:
            namespaces.attach(settings.host)
        if master and _fits(folder, applied, text, wanted):
            files.write_atomic(folder / "haproxy.cfg", text)
            _change_servers(folder, wanted, drain_seconds)
        else:
            _load(bazaar, folder, text, wanted, master)
        _write_applied(folder, text, wanted, fronts)
        network.remove_addresses(bazaar, keep=[front.address for front in fronts])
        if not settings.host:
            namespaces.delete(host_name(bazaar))


def status(bazaar: str) -> dict[str, list[BackendStatus]]:
    """What HAProxy measured of each service's replicas; empty when it does not run."""
    folder = _folder(bazaar)
    if haproxy.running(bazaar, folder) is None:
        return {}
    found: dict[str, list[BackendStatus]] = {}
    for row in runtime.statistics(folder):
        found.setdefault(row["pxname"], []).append(
            BackendStatus(
                configuration.backend_id(row["svname"]),
                _healthy(row),
                int(row["stot"] or 0),
                int(row["scur"] or 0),
                _detail(row),
            )
        )
    return found


def running(bazaar: str) -> int | None:
    """The pid of the bazaar's HAProxy (its master), or None."""
    found = haproxy.running(bazaar, _folder(bazaar))
    return found.pid if found else None


def processes(bazaar: str) -> list[int]:
    """The pids of the bazaar's HAProxy, master and workers: what they hold is the bazaar's."""
    return [one.pid for one in daemons.find_all(haproxy.PROGRAM, str(_folder(bazaar)))]


def keep(bazaar: str) -> bool:
    """Start HAProxy again from its last configuration if it died; True when it had."""
    folder = _folder(bazaar)
    if not (folder / "haproxy.cfg").exists() or haproxy.running(bazaar, folder) is not None:
        return False
    with _locked(bazaar) as folder:
        if haproxy.running(bazaar, folder) is not None:
            return False
        # Without states every server starts as up; the first checks tell the truth.
        files.write_atomic(folder / "servers.state", "\n".join([*runtime.STATE_HEAD, ""]))
        haproxy.start(bazaar, folder)
    return True


def mark_down(bazaar: str, service: str, replica: str) -> None:
    """Tell HAProxy at once that a replica died; it is back when it answers its checks."""
    path = f"{service}/{configuration.server_name(replica)}"
    runtime.change(_folder(bazaar), f"set server {path} health down")


def stop(bazaar: str) -> None:
    """End the bazaar's HAProxy and take its files and front addresses away."""
    with _locked(bazaar) as folder:
        haproxy.stop(folder)
        namespaces.delete(host_name(bazaar))
        if namespaces.exists(front_namespace(bazaar)):
            with contextlib.suppress(NetworkError):  # a front without its uplink has none
                network.remove_addresses(bazaar, keep=[])
        for name in ("admin.sock", "master.sock", "haproxy.pid", "haproxy.cfg"):
            (folder / name).unlink(missing_ok=True)
        for name in ("applied.json", "servers.state", "lock"):
            (folder / name).unlink(missing_ok=True)
        for part in (folder / "empty", folder):
            with contextlib.suppress(OSError):
                part.rmdir()


def _settings(bazaar: str, fronts: Sequence[Front]) -> Settings:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)[::-1]
    # Two files a connection, and some for listeners, checks and a reload.
    most = 4000 if limit == resource.RLIM_INFINITY else min(4000, max(100, (limit - 400) // 2))
    user = next((name for name in ("haproxy", "nobody") if _has_user(name)), "root")
    group = "nogroup" if user == "nobody" else user
    published = any(front.publish for front in fronts)
    return Settings(
        bazaar,
        user=user,
        group=group,
        maximum=most,
        threads=min(4, os.cpu_count() or 1),
        host=host_name(bazaar) if published else "",
    )


def _check_ports(bazaar: str, fronts: Sequence[Front], applied: _Applied) -> None:
    for front in fronts:
        for place in front.publish:
            if (place.address, place.port) not in applied.published:
                ports.check_free(place.address, place.port, front.service, processes(bazaar))
        if front.certificate is not None and not front.certificate.is_file():
            raise NetworkError(f"{front.service}: there is no certificate {front.certificate}")


def _fits(folder: Path, applied: _Applied, text: str, wanted: list[Server]) -> bool:
    """Whether runtime commands can lead from what runs to what is wanted."""
    if applied.structure != _digest(text):
        return False
    _, now = runtime.servers_state(folder)
    names = {f"{one.backend}/{one.name}" for one in now}
    return all(applied.options.get(one.path) == one.options for one in wanted if one.path in names)


def _change_servers(folder: Path, wanted: list[Server], drain_seconds: float) -> None:
    """Add, move, weigh and remove servers in the HAProxy that runs."""
    _, now = runtime.servers_state(folder)
    known = {f"{one.backend}/{one.name}": one for one in now}
    for server in wanted:
        one = known.pop(server.path, None)
        if one is None:
            _add_server(folder, server)
            continue
        if (one.address, one.port) != (server.address, server.port):
            place = f"{server.address} port {server.port}"
            runtime.change(folder, f"set server {server.path} addr {place}", "changed|no need")
            if server.checked:
                runtime.change(folder, f"set server {server.path} health down")
        if one.weight != server.weight:
            runtime.change(folder, f"set server {server.path} weight {server.weight}")
        if one.in_maintenance:
            runtime.change(folder, f"set server {server.path} state ready")
    _remove_servers(folder, list(known), drain_seconds)


def _add_server(folder: Path, server: Server) -> None:
    line = f"{server.address}:{server.port} {server.options} weight {server.weight}"
    runtime.change(folder, f"add server {server.path} {line}", "New server registered")
    # One line, so that no request finds it up before its first check.
    start = [f"enable server {server.path}"]
    if server.checked:
        start = [
            f"enable health {server.path}",
            *start,
            f"set server {server.path} health down",
        ]
    runtime.change(folder, ";".join(start))


def _remove_servers(folder: Path, gone: list[str], drain_seconds: float) -> None:
    for path in gone:
        runtime.change(folder, f"set server {path} weight 0")
    deadline = time.monotonic() + drain_seconds
    while gone and time.monotonic() < deadline:
        rows = runtime.statistics(folder)
        busy = {f"{row['pxname']}/{row['svname']}" for row in rows if int(row["scur"] or 0)}
        if not busy.intersection(gone):
            break
        time.sleep(0.02)
    for path in gone:
        # Maintenance ends the sessions that are left: a server goes only when it is idle.
        runtime.change(folder, f"set server {path} state maint")
    for path in gone:
        deadline = time.monotonic() + 2.0
        while "deleted" not in (answer := runtime.ask(folder, "admin.sock", f"del server {path}")):
            if time.monotonic() > deadline:
                raise NetworkError(f"HAProxy keeps the server {path}: {answer.strip()}")
            time.sleep(0.01)


def _load(
    bazaar: str, folder: Path, text: str, wanted: list[Server], master: Identity | None
) -> None:
    """Start HAProxy with a configuration, or have the one that runs take it over."""
    known = _known_states(folder, wanted) if master else {}
    new = [runtime.state_line(one) for one in wanted if one.checked and one.path not in known]
    state = [*runtime.STATE_HEAD, *known.values(), *new, ""]
    draft = folder / "draft.cfg"
    files.write_atomic(draft, text)
    try:
        haproxy.validate(bazaar, folder, draft)
        files.write_atomic(folder / "servers.state", "\n".join(state))
        (folder / "applied.json").unlink(missing_ok=True)  # until it is true again
        before = folder / "haproxy.cfg"
        old = before.read_text() if master and before.exists() else None
        draft.replace(before)
    finally:
        draft.unlink(missing_ok=True)
    if master is None:
        haproxy.start(bazaar, folder)
    else:
        haproxy.reload(bazaar, folder, master, old)


def _known_states(folder: Path, wanted: list[Server]) -> dict[str, str]:
    """The state lines of the servers that stay where they are."""
    _, now = runtime.servers_state(folder)
    places = {one.path: (one.address, one.port) for one in wanted}
    return {
        path: one.line
        for one in now
        if (path := f"{one.backend}/{one.name}") in places
        and places[path] == (one.address, one.port)
    }


def _healthy(row: dict[str, str]) -> bool:
    state, check = row["status"], row["check_status"].removeprefix("* ")
    if state == "no check":
        return True
    return state.startswith(("UP", "DRAIN")) and check != "INI"


def _detail(row: dict[str, str]) -> str:
    """For people: `DRAIN Layer7 check passed`, `Layer7 wrong status 500: Server Error`."""
    draining = row["weight"] == "0" or row["status"].startswith("DRAIN")
    state = "MAINT" if row["status"].startswith("MAINT") else "DRAIN" if draining else ""
    said = row["check_desc"]
    if row["status"].startswith("DOWN") or not row["check_status"].endswith("OK"):
        said += f" {row['check_code']}" if row["check_code"] not in ("", "0") else ""
        said += f": {row['last_chk']}" if row["last_chk"] else ""
    return " ".join(word for word in (state, said) if word)


def _read_applied(folder: Path) -> _Applied:
    try:
        value = files.read_json(folder / "applied.json")
        return _Applied(
            str(value["structure"]),
            {str(path): str(words) for path, words in value["options"].items()},
            tuple((str(address), int(port)) for address, port in value["published"]),
        )
    except (StateError, TypeError, KeyError, ValueError, AttributeError):
        return _Applied()  # unknown: a reload makes it known


def _write_applied(folder: Path, text: str, wanted: list[Server], fronts: Sequence[Front]) -> None:
    places = [(place.address, place.port) for front in fronts for place in front.publish]
    value = {
        "structure": _digest(text),
        "options": {one.path: one.options for one in wanted},
        "published": places,
    }
    files.write_json(folder / "applied.json", value)


def _digest(text: str) -> str:
    return hashlib.sha256(configuration.structure(text).encode()).hexdigest()


def _folder(bazaar: str) -> Path:
    front_namespace(bazaar)  # refuses what is no name
    return paths.bazaar(bazaar) / "balance"


@contextlib.contextmanager
def _locked(bazaar: str) -> Generator[Path]:
    """The balance's folder, held against others who would change it."""
    folder = _folder(bazaar)
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # `stop` takes it away
                if (folder / "lock").stat().st_ino == os.fstat(file.fileno()).st_ino:
                    yield folder
                    return


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
