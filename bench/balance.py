"""What the network of a bazaar costs: wiring a container in, and asking through the balance.

    bench/balance.py [-o json] [--seconds 3] [--containers 30]

Two servers (HAProxy, answering by itself) stand in two sites; wrk asks one of them directly,
then both through the front. Needs root, haproxy and wrk; takes about ten seconds.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import report
from bazaar.host import commands, namespaces
from bazaar.model.site import Backend, Front, Health
from bazaar.site import balance, network
from report import Figure

SERVER = """\
global
    nbthread 1
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 1s
frontend answers
    bind :80
    http-request return status 200 content-type text/plain string hello
"""


def measure(folder: Path, seconds: int, containers: int) -> list[Figure]:
    bazaar = f"bench{os.getpid()}"
    subnet = network.choose_subnet()
    start = subnet.removesuffix("0.0/16")
    (folder / "server.cfg").write_text(SERVER)
    with ExitStack() as undo:
        undo.callback(network.remove_all, bazaar)
        undo.callback(balance.stop, bazaar)
        network.ensure_front(bazaar, subnet)
        backends = [
            serve(undo, folder, bazaar, site, f"{start}{number}.11", f"{start}{number}.0/24")
            for number, site in ((1, "u"), (2, "k"))
        ]
        times: list[float] = []
        for number in range(containers):
            begin = time.monotonic()
            network.connect(bazaar, "u", f"{bazaar}.wired.u.{number}", f"{start}1.{20 + number}")
            times.append((time.monotonic() - begin) * 1000)
        front = Front("web", f"{start}0.10", 80, health=Health("http"), backends=tuple(backends))
        balance.apply(bazaar, [front])
        while not all(one.healthy for one in balance.status(bazaar)["web"]):
            time.sleep(0.02)
        direct = ask(backends[0].address, seconds)
        through = ask(front.address, seconds)
    half = round(statistics.median(times), 2)
    return [
        Figure("balance.connect.p50", half, "ms", goal="<= 15", holds=half <= 15),
        Figure(
            "balance.requests",
            through,
            "requests/s",
            rival="one server asked directly",
            rival_value=direct,
            ratio=round(through / direct, 3),
        ),
    ]


def serve(
    undo: ExitStack, folder: Path, bazaar: str, site: str, address: str, subnet: str
) -> Backend:
    network.ensure_site(bazaar, site, subnet)
    attachment = network.connect(bazaar, site, f"{bazaar}.web.{site}.1", address)
    with namespaces.enter(attachment.namespace):
        server = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(folder / "server.cfg")])
    undo.callback(server.wait)
    undo.callback(server.kill)
    return Backend(f"web/{site}/1", site, address, 80)


def ask(address: str, seconds: int) -> float:
    words = ["wrk", "-t1", "-c16", f"-d{seconds}", f"http://{address}/"]
    said = commands.run(words, timeout=seconds + 20).output
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"wrk measured nothing:\n{said}")
    return float(found[1])


def run(seconds: int, containers: int) -> list[Figure]:
    for program in ("haproxy", "wrk"):
        commands.find(program, package=program)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BAZAAR_STATE"] = folder
        return measure(Path(folder), seconds, containers)


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--containers", type=int, default=30)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: run(chosen.seconds, chosen.containers), chosen))
