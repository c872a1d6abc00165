"""HAProxy's own sockets: what runs, what it measured, and changes that need no reload."""

from __future__ import annotations

import csv
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from bazaar.errors import NetworkError
from bazaar.site.configuration import Server

_LIMIT = 16 << 20  # bytes of an answer


@dataclass(frozen=True, slots=True)
class Running:
    """A server as HAProxy has it now."""

    backend: str
    name: str
    address: str
    port: int
    weight: int
    in_maintenance: bool
    line: str  # of `show servers state`


@dataclass(frozen=True, slots=True)
class Workers:
    """What the master says of its processes."""

    reloads: int
    failed: int  # reloads since the last that worked
    current: int | None  # the pid of the worker that has the newest configuration


def ask(folder: Path, name: str, command: str, timeout: float = 5.0) -> str:
    """Send commands, separated by ';', to a socket in ``folder``; returns the answers."""
    # Through the folder's descriptor: a socket's path may have no more than 107 bytes.
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(f"/proc/self/fd/{directory}/{name}")
            client.sendall(command.encode() + b"\n")
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) < _LIMIT and (chunk := client.recv(65536)):
                answer += chunk
    except OSError as error:
        raise NetworkError(f"HAProxy does not answer at {folder / name}: {error}") from error
    finally:
        os.close(directory)
    return answer.decode(errors="replace")


def change(folder: Path, command: str, expected: str = "") -> None:
    """Send one command that changes something; NetworkError unless it answers as it should."""
    answer = ask(folder, "admin.sock", command).strip()
    if not re.search(expected or r"^$", answer):
        raise NetworkError(f"HAProxy refused `{command}`: {answer or 'no reason given'}")


def servers_state(folder: Path) -> tuple[list[str], list[Running]]:
    """The head of `show servers state`, and its servers."""
    lines = [line for line in ask(folder, "admin.sock", "show servers state").splitlines() if line]
    if len(lines) < 2 or lines[0] != "1" or not lines[1].startswith("# "):
        raise NetworkError("HAProxy's `show servers state` has an unknown form")
    columns = lines[1][2:].split()
    found: list[Running] = []
    for line in lines[2:]:
        values = dict(zip(columns, line.split(), strict=False))
        found.append(
            Running(
                values["be_name"],
                values["srv_name"],
                values["srv_addr"],
                int(values["srv_port"]),
                int(values["srv_uweight"]),
                int(values["srv_admin_state"]) & 0x03 != 0,  # forced or inherited maintenance
                line,
            )
        )
    return lines[:2], found


def state_line(server: Server) -> str:
    """A line of a server state file by which a new server starts as down, until it answers.

    Columns as in HAProxy's management guide, `show servers state`, version 1.
    """
    weight = server.weight
    return (
        f"1 {server.backend} 1 {server.name} {server.address} 0 0 {weight} {weight} 0 "
        f"8 2 0 6 0 0 0 - {server.port} - 0 0 - - 0"
    )


_STATE_COLUMNS = """
be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state
srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl
srv_check_port srv_check_addr srv_agent_addr srv_agent_port
"""
STATE_HEAD = ("1", f"# {' '.join(_STATE_COLUMNS.split())}")


def statistics(folder: Path) -> list[dict[str, str]]:
    """The server rows of `show stat`, by column name."""
    text = ask(folder, "admin.sock", "show stat -1 4 -1").removeprefix("# ")
    return list(csv.DictReader(text.strip().splitlines()))


def workers(folder: Path) -> Workers:
    """What the master says of its workers and reloads."""
    text = ask(folder, "master.sock", "show proc")
    master = re.search(r"^\d+\s+master\s+(\d+) \[failed: (\d+)\]", text, re.MULTILINE)
    if master is None:
        raise NetworkError("HAProxy's `show proc` has an unknown form")
    worker = re.search(r"^# workers\n(\d+)\s+worker\s+0\s", text, re.MULTILINE)
    return Workers(int(master[1]), int(master[2]), int(worker[1]) if worker else None)
