"""What a UDP flood of over a million packets a second costs legitimate HTTP clients.

    bench/flood.py [-o json] [--rounds 5] [--seconds 2] [--rate 1400000] [--sources 4096]

HAProxy answers in a namespace of its own; clients (wrk) and the flood come by one veth each.
Without shield, with it, and with nftables at two hooks; all against a control, in which the
same flood hits a sink elsewhere. Needs root, haproxy and wrk; takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import report
from bazaar.host import commands, namespaces
from bazaar.model.figure import Figure
from bazaar.shield import guard, measure
from bazaar.shield.settings import ShieldSpec

ADDRESS = "198.19.255.1"
SERVER = """
global
  nbthread 1
defaults
  mode http
  timeout client 30s
frontend bench
  bind {address}:80
  http-request return status 200 content-type text/plain string "{body}"
"""


@contextlib.contextmanager
def server(name: str) -> Iterator[str]:
    """An HTTP server in a namespace; gives the namespace's name."""
    namespace = f"bz-{name}-front"
    namespaces.create(namespace, lines=[f"address add {ADDRESS}/32 dev lo"])
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
            file.write(SERVER.format(address=ADDRESS, body="x" * 1000))
            file.flush()
            with namespaces.enter(namespace):
                process = subprocess.Popen(
                    [commands.find("haproxy", package="haproxy"), "-db", "-f", file.name]
                )
            try:
                time.sleep(0.5)
                yield namespace
            finally:
                process.terminate()
                process.wait()
    finally:
        namespaces.delete(namespace)


def options() -> argparse.Namespace:
    parser = report.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rate", type=int, default=1_400_000)
    parser.add_argument("--sources", type=int, default=4096)
    parser.add_argument("--protocol", choices=["udp", "syn"], default="udp")
    parser.add_argument("--port", type=int, default=9)
    parser.add_argument("--cpu", type=int, help="pin the generator to this core")
    parser.add_argument("--allow", action="store_true", help="put the clients on the allow list")
    parser.add_argument("--raw", action="store_true", help="print each round too, to stderr")
    return parser.parse_args()


def flood(chosen: argparse.Namespace, progress: report.Progress) -> list[Figure]:
    name = f"flood{os.getpid()}"
    settings = measure.Settings(
        seconds=chosen.seconds,
        rounds=chosen.rounds,
        rate=chosen.rate,
        sources=chosen.sources,
        protocol=chosen.protocol,
        port=chosen.port,
        cpu=chosen.cpu,
    )
    # The clients are one source: without the allow list its rate has to be that high.
    spec = ShieldSpec(rate=2_000 if chosen.allow else 1_000_000)
    with server(name) as front:
        shield = guard.attach(name, spec, (), front)
        try:
            samples = measure.flood(
                name,
                shield,
                front,
                f"http://{ADDRESS}/",
                ADDRESS,
                settings=settings,
                allow_clients=chosen.allow,
                progress=progress,
            )
        finally:
            shield.detach()
    if chosen.raw:
        rounds(samples)
    return measure.figures(samples, note=measure.clients(spec, allowed=chosen.allow))


def rounds(samples: dict[str, list[measure.Sample]]) -> None:
    """Every sample, for whoever doubts a median."""
    for phase, found in samples.items():
        for sample in found:
            print(
                f"{phase:22} {sample.load.requests_per_second:9.0f}/s p99 "
                f"{sample.load.p99:6.2f} ms  {sample.load.errors} errors  "
                f"{sample.flood:9.0f} packets/s  {sample.dropped:.3f} dropped",
                file=sys.stderr,
            )


if __name__ == "__main__":
    given = options()
    sys.exit(report.run(lambda progress: flood(given, progress), given))
