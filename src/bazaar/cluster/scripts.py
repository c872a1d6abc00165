"""The scripts that make a plan true: one for each machine and phase, run by sh as root.

Each can be run again, and ends at the first thing that fails with what the unit's journal says.
"""

from __future__ import annotations

import base64
import io
import shlex
import tarfile
from collections.abc import Iterable
from pathlib import PurePath

from bazaar.cluster import members
from bazaar.cluster.desired import Desired
from bazaar.cluster.facts import FOLDER, SETS
from bazaar.cluster.parts import PHASES, UNITS, Context, File, Unit
from bazaar.cluster.plan import NodePlan
from bazaar.cluster.worker import CNI_PROGRAMS

READY_SECONDS = 90
_LOCK_SECONDS = 150  # longer than the longest wait for a unit
_HEAD = r"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -eu
# One at a time: what an earlier one began, whoever waited for it, comes to its end first.
exec 9>/run/bazaar-node.lock
flock -w @LOCK@ 9 || { echo 'another change of this machine does not end' >&2; exit 1; }
faulty='fatal|panic:|error|fail|no space|denied|in use'
# What a unit's program said last, where it did not start: what names a fault, else anything.
told() {
  said=$(journalctl _SYSTEMD_UNIT="$1" _TRANSPORT=stdout -n 80 -o cat --no-pager 2>/dev/null)
  faults=$(printf '%s\n' "$said" | grep -iE "$faulty" || true)
  [ -n "$said" ] || said=$(journalctl -u "$1" -n 4 -o cat --no-pager 2>/dev/null)
  printf '%s\n' "${faults:-$said}" | tail -n 3 | cut -c 1-400 >&2
  echo "$1 did not start" >&2
  exit 1
}
start() {
  systemctl enable -q "$1" 2>/dev/null || true
  systemctl reset-failed "$1" 2>/dev/null || true
  systemctl "$2" "$1" || told "$1"
  mkdir -p @FOLDER@/started
}
# Until a condition holds, for a while; the pauses grow.
wait_for() {
  limit=$(($(date +%s) + @SECONDS@))
  until eval "$2" >/dev/null 2>&1; do
    [ "$(systemctl is-active "$1")" != failed ] && [ "$(date +%s)" -lt $limit ] || told "$1"
    sleep 0.1
  done
}
"""


def phases(plan: NodePlan) -> list[str]:
    """The phases in which this machine has something to do."""
    work = {unit.phase for unit in plan.starts}
    if plan.packages or plan.sets or plan.write or plan.remove or plan.stops:
        work.add("prepare")
    return [phase for phase in PHASES if phase in work]


def script(plan: NodePlan, wanted: Desired, context: Context, phase: str) -> str:
    """What one machine does in one phase."""
    lines = [head()]
    if phase == "prepare":
        lines += _prepare(plan, wanted, context)
    for unit in plan.starts:
        if unit.phase == phase:
            lines += [members.initial(context)] if unit.name == "etcd.service" else []
            lines += _start(unit, plan.started[unit.name])
    return "\n".join(lines)


def head() -> str:
    """What every script begins with."""
    return (
        _HEAD.replace("@FOLDER@", FOLDER)
        .replace("@SECONDS@", str(READY_SECONDS))
        .replace("@LOCK@", str(_LOCK_SECONDS))
    )


def _prepare(plan: NodePlan, wanted: Desired, context: Context) -> list[str]:
    lines = [f"mkdir -p {FOLDER}"]
    if plan.packages:
        lines.append(
            _brought(plan.packages, context.packages)
            if context.packages
            else _packages(plan.packages)
        )
    for name in plan.stops:
        lines.append(f"systemctl disable -q --now {shlex.quote(name)} || true")
        lines.append(f"rm -f {FOLDER}/started/{shlex.quote(name)}")
    if plan.remove:
        lines.append("rm -f -- " + " ".join(map(shlex.quote, plan.remove)))
    if plan.write:
        lines.append(_written(plan.write))
    paths = [*(file.path for file in plan.write), *plan.remove]
    if any(path.startswith(UNITS) for path in paths):
        lines.append("systemctl daemon-reload")
    # Last: until it is there, nobody takes what is half-written for whole.
    listed = "\n".join(wanted.files)
    lines.append(f"cat >{FOLDER}/files.new <<'END'\n{listed}\nEND")
    lines.append(f"mv {FOLDER}/files.new {FOLDER}/files")
    lines.append(f"ln -sfn {context.programs.there}/bin {CNI_PROGRAMS}")
    for name in ("kubectl", "etcdctl"):
        lines.append(f"ln -sfn {context.program(name)} {FOLDER}/{name}")
    lines.append(f"ln -sfn {context.program('kubectl')} /usr/local/bin/kubectl")
    return lines


def _brought(names: Iterable[str], folder: str) -> str:
    """Packages from the archive that was carried there; apt asks nobody else."""
    words = " ".join(map(shlex.quote, names))
    there = f"{SETS}/{PurePath(folder).name}"
    log = f"{FOLDER}/packages.log"
    return (
        "export DEBIAN_FRONTEND=noninteractive\n"
        f"echo 'deb [trusted=yes] file:{there} ./' >{FOLDER}/packages.list\n"
        f"mkdir -p {FOLDER}/lists/partial\n"
        "apt() {\n"
        f"  apt-get -q -o Dir::Etc::sourcelist={FOLDER}/packages.list "
        f'-o Dir::Etc::sourceparts=- -o Dir::State::lists={FOLDER}/lists "$@" >>{log} 2>&1 ||\n'
        f"    {{ tail -n 3 {log} >&2; exit 1; }}\n"
        "}\n"
        f": >{log}\napt update\napt install -y --no-install-recommends {words}\n"
        f"rm -rf {FOLDER}/lists {FOLDER}/packages.list"
    )


def _packages(names: Iterable[str]) -> str:
    words = " ".join(map(shlex.quote, names))
    return (
        "if command -v apt-get >/dev/null; then\n"
        "  export DEBIAN_FRONTEND=noninteractive\n"
        f"  apt-get -q install -y --no-install-recommends {words} >{FOLDER}/packages.log 2>&1 ||\n"
        f"    {{ apt-get -q update && apt-get -q install -y --no-install-recommends {words}; }} "
        f">{FOLDER}/packages.log 2>&1 || {{ tail -n 3 {FOLDER}/packages.log >&2; exit 1; }}\n"
        "elif command -v dnf >/dev/null; then\n"
        f"  dnf -q -y install {words} >{FOLDER}/packages.log 2>&1 ||\n"
        f"    {{ tail -n 3 {FOLDER}/packages.log >&2; exit 1; }}\n"
        f"else\n  echo 'no apt-get and no dnf: install {words} there' >&2; exit 1\nfi"
    )


def _written(files: Iterable[File]) -> str:
    """The files in one archive, on the script's own way: no further round trip."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT
    ) as to:
        for file in files:
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode = len(file.content), file.mode
            to.addfile(entry, io.BytesIO(file.content))
    text = base64.encodebytes(buffer.getvalue()).decode()
    return f"base64 -d <<'END' | tar -xzpmf - --no-same-owner -C /\n{text}END"


def _start(unit: Unit, digest: str) -> list[str]:
    name = shlex.quote(unit.name)
    lines = [f"start {name} {'reload-or-restart' if unit.reload else 'restart'}"]
    if unit.ready:
        lines.append(f"wait_for {name} {shlex.quote(unit.ready)}")
    lines.append(f"echo {digest} >{FOLDER}/started/{name}")
    return lines
