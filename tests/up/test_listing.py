"""`bazaar list` and `bazaar status --short`: what is here, and how it is, on few lines."""

from __future__ import annotations

import json
import socket
import time

import pytest

from bazaar.cli.main import main
from bazaar.cli.status import missing_table, services_table
from bazaar.host import paths
from bazaar.up.daemon import socket_path
from bazaar.up.rpc import Server

SERVICES = [{"healthy": 2, "wanted": 3}, {"healthy": 1, "wanted": 1}]
PROBE = {
    "name": "writes",
    "program": "tracepoint:syscalls:sys_enter_write { @ = count(); }",
    "problem": "",
    "nanoseconds": None,
    "runs": 7,
    "lost": 0,
    "text": "@: 12345\n",
}
STATUS = {
    "bazaar": "shop",
    "seconds": 65,
    "supervisor": {"pid": 1, "started": 0.0, "state": "ready"},
    "sites": [],
    "services": [],
    "shield": None,
    "probes": [
        PROBE,
        {**PROBE, "name": "sends", "problem": "sends: this kernel has no such thing"},
    ],
}


@pytest.fixture
def supervised(state):
    """Makes a bazaar whose supervisor answers every question alike."""
    servers = []

    def start(name, answer):
        paths.bazaar(name).mkdir(parents=True)
        (paths.bazaar(name) / "wanted.json").write_text("{}")
        server = Server(socket_path(name), {"status": lambda _, emit: answer})
        server.start()
        servers.append(server)

    yield start
    for server in servers:
        server.close()


def test_all_that_is_here_is_listed(supervised, capsys):
    supervised("shop", {"seconds": 65, "services": SERVICES})
    (paths.bazaar("crashed")).mkdir()
    (paths.bazaar("crashed") / "wanted.json").write_text("{}")
    (paths.bazaar("old") / "volumes" / "data").mkdir(parents=True)
    (paths.bazaar("nothing")).mkdir()
    assert main(["list", "-o", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "shop": "up",
        "crashed": "down",
        "old": "volumes",
    }
    assert (rows["shop"]["healthy"], rows["shop"]["wanted"]) == (3, 4)
    assert abs(time.time() - 65 - rows["shop"]["since"]) < 5
    assert rows["old"]["volumes"] == ["data"] and rows["old"]["since"] is None
    assert rows["old"]["folder"] == str(paths.bazaar("old"))
    assert main(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["BAZAAR", "STATE", "UP", "HEALTHY", "VOLUMES", "FOLDER"]
    words = lines[-1].split()  # the seconds are those of the clock
    assert words[:4] == ["shop", "up", "1", "m"] and words[4] in ("5", "6", "7")
    assert words[5:7] == ["s", "3/4"]


def test_where_there_is_none_the_folder_is_told(state, capsys):
    assert main(["list"]) == 0
    assert str(paths.state()) in capsys.readouterr().err


def test_a_supervisor_that_hangs_holds_up_no_other(supervised, capsys, monkeypatch):
    from bazaar.up import listing

    monkeypatch.setattr(listing, "_PATIENCE", 0.2)
    supervised("shop", {"seconds": 65, "services": SERVICES})
    (paths.bazaar("stuck")).mkdir()
    (paths.bazaar("stuck") / "wanted.json").write_text("{}")
    monkeypatch.chdir(paths.bazaar("stuck"))  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(socket_path("stuck").name)
        server.listen()
        assert main(["list", "-o", "json"]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {"shop": "up", "stuck": "down"}


def test_a_short_status_has_one_line_for_a_probe(supervised, capsys):
    supervised("shop", STATUS)
    assert main(["status", "--short"]) == 0
    short = capsys.readouterr().out
    assert "probe writes   tracepoint:syscalls:sys_enter_write   7 runs, 0 lost\n" in short
    assert "12345" not in short and "this kernel has no such thing" in short
    assert main(["status"]) == 0
    assert "7 runs, 0 lost\n@: 12345\n" in capsys.readouterr().out


def test_what_a_probe_sees_is_nothing_while_it_has_a_problem(supervised, capsys):
    service = {
        "name": "web",
        "url": None,
        "address": None,
        "port": None,
        "published": [],
        "healthy": 1,
        "wanted": 1,
        "engine": "shared",
        "seen": "everything",
        "replicas": [],
    }
    blind = {**PROBE, "name": "sends", "problem": f"{'bpf(2): ' * 12}\nask for it"}
    cells = []
    for probes in ([], [PROBE], [PROBE, blind], [blind]):
        status = {**STATUS, "services": [service], "probes": probes}
        cells.append(
            services_table(status).splitlines()[1].partition("shared")[2].split(maxsplit=1)
        )
    assert [cell[-1] for cell in cells[:3]] == ["-", "everything", "everything, but not by sends"]
    assert cells[3][-1].startswith("nothing (bpf(2): ") and cells[3][-1].endswith("…)")
    assert missing_table({**STATUS, "missing": ["BPF (probes): no; do"], "probes": [blind]}) == (
        f"MISSING\nBPF (probes): no; do\nprobe sends: {'bpf(2): ' * 12}; ask for it"
    )
    assert missing_table({**STATUS, "probes": [PROBE]}) == ""
