"""How long clusters take: one machine, three control planes and two workers, one worker more.

Needs root. The machines are local ones; making them, and building the programs, is outside the
clock. Times are those of the command line, from its start to its end: all nodes ready and DNS
answering.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import report
from report import ROOT, Figure, Progress

_MEMORY = (
    "for p in /proc/[0-9]*; do read -r comm <$p/comm; case $comm in "
    "kube*|etcd|containerd*|coredns|haproxy) awk '/^Pss:/ {print $2}' $p/smaps_rollup;; esac; "
    "done | awk '{s += $1} END {print s}'"
)


class Bench:
    """Commands on clusters in a state folder of their own."""

    def __init__(self, state: str) -> None:
        self.environment = {
            **os.environ,
            "BAZAAR_STATE": state,
            "BAZAAR_CLUSTER_KEY_FILE": f"{state}/cluster.key",
        }

    def run(self, *words: str) -> tuple[float, str]:
        """Seconds of one command, and what it printed."""
        began = time.perf_counter()
        done = subprocess.run(
            [str(ROOT / "bazaar"), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"bazaar {' '.join(words)}: {done.stderr}")
        return time.perf_counter() - began, done.stdout

    def apply(self, count: int, name: str) -> tuple[float, dict[str, Any]]:
        """Seconds of an apply, without those for making its machines."""
        took, printed = self.run(
            "cluster", "apply", "--local", str(count), "--name", name, "--yes", "-o", "json"
        )
        outcome = json.loads(printed)
        return took - outcome["phases"].get("machines", 0.0), outcome

    def reset(self, name: str) -> None:
        self.run("cluster", "reset", "--name", name, "--yes")

    def memory(self, name: str) -> float:
        """MiB that all programs of a machine's cluster take, shared pages counted once."""
        machines = json.loads(self.run("machines", "list", "-o", "json")[1])
        place = next(one for one in machines if one["name"] == name)
        words = [*place["ssh"].split(), _MEMORY]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024


def cpu_seconds() -> float:
    """Seconds all processors worked since the machine started."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, _steal = map(int, first)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int, progress: Progress) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bazaar-bench-") as state:
        bench = Bench(state)
        try:
            return [*one(bench, rounds, progress), *many(bench, progress), *three(bench, progress)]
        finally:
            progress("cluster: taking the machines away")
            bench.run("machines", "destroy", "--all")


def one(bench: Bench, rounds: int, progress: Progress) -> list[Figure]:
    times: list[float] = []
    memory = 0.0
    for number in range(rounds):
        progress(f"cluster: one machine, round {number + 1} of {rounds}")
        times.append(bench.apply(1, "one")[0])
        memory = bench.memory("m1")
        bench.reset("one")
    return [
        _figure("cluster.one", statistics.median(times), "s", 15.0, f"median of {rounds}"),
        _figure(
            "cluster.memory", memory, "MiB", 700.0, "proportional, all programs of one machine"
        ),
    ]


def many(bench: Bench, progress: Progress) -> list[Figure]:
    progress("cluster: three control planes and two workers")
    five, _ = bench.apply(5, "many")
    progress("cluster: a second plan")
    again, printed = bench.run("cluster", "plan", "--name", "many", "-o", "json")
    empty = not json.loads(printed)["changes"]
    progress("cluster: one worker more")
    more, _ = bench.apply(6, "many")
    bench.reset("many")
    plan = _figure("cluster.second_plan", again, "s", 3.0, "empty" if empty else "NOT empty")
    return [
        _figure("cluster.three_and_two", five, "s", 40.0),
        plan,
        _figure("cluster.add_worker", more, "s", 10.0),
    ]


def three(bench: Bench, progress: Progress) -> list[Figure]:
    """Three clusters of one machine each, one after the other, and all at once."""
    from bazaar.up import clusters

    os.environ.update(bench.environment)
    progress("cluster: making three machines")
    made = [one.machine for one in clusters.make_machines(3, progress)]
    wall: dict[str, float] = {}
    work: dict[str, float] = {}

    def become(machine: Any) -> None:
        words = ["--machines", f"{machine.name}={machine.address}", "--name", f"on-{machine.name}"]
        ways = ["--key", machine.key, "--known-hosts", machine.known_hosts]
        bench.run("cluster", "apply", *words, *ways, "-o", "json")

    for way in ("row", "once"):
        progress(f"cluster: three clusters, {'one after the other' if way == 'row' else 'at once'}")
        began, cpu = time.perf_counter(), cpu_seconds()
        with ThreadPoolExecutor(1 if way == "row" else 3) as pool:
            list(pool.map(become, made))
        wall[way], work[way] = time.perf_counter() - began, cpu_seconds() - cpu
        for machine in made:
            bench.reset(f"on-{machine.name}")
    share = wall["once"] / wall["row"]
    return [
        Figure(
            "cluster.three_at_once",
            round(wall["once"], 2),
            "s",
            "one after the other",
            round(wall["row"], 2),
            round(share, 2),
            goal="<= 0.9 x",
            holds=share <= 0.9,
        ),
        Figure(
            "cluster.three_at_once.cpu",
            round(work["once"], 1),
            "s",
            "one after the other",
            round(work["row"], 1),
            round(work["once"] / work["row"], 2),
            goal="<= 1 x",
            holds=work["once"] <= work["row"],
        ),
    ]


def _figure(name: str, value: float, unit: str, goal: float, note: str = "") -> Figure:
    return Figure(
        name,
        round(value, 2),
        unit,
        goal=f"<= {goal:g} {unit}",
        holds=value <= goal and not note.startswith("NOT"),
        note=note,
    )


if __name__ == "__main__":
    options = report.parser(__doc__ or "")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    sys.exit(report.run(lambda progress: measure(chosen.rounds, progress), chosen))
