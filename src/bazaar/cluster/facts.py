"""What a machine is and holds: one script asks for all of it, one function reads the answer.

The answer is foreign text: whatever it says, `parse` makes facts of it or says that it cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bazaar.errors import RemoteError
from bazaar.model.record import field, record

FOLDER = "/var/lib/bazaar-node"  # what we note on a machine
SETS = "/opt/bazaar-node"  # programs, a folder for each set
# Annotations of a node: which labels and taints we put there, so that we may take them away.
OWN_LABELS, OWN_TAINTS = "bazaar.local/labels", "bazaar.local/taints"
KUBECTL = "/var/lib/bazaar-node/kubectl"  # a link to the program in use
ADMIN = "/etc/kubernetes/super-admin.conf"
_PKI = "/etc/kubernetes/pki/etcd"
# `etcdctl` on a member, with what it needs to be let in.
ETCDCTL = (
    f"{FOLDER}/etcdctl --endpoints=https://127.0.0.1:2379 --cacert={_PKI}/ca.crt "
    f"--cert={_PKI}/healthcheck-client.crt --key={_PKI}/healthcheck-client.key"
)
_END = "end=facts"  # the last line: without it, the answer is not whole
SCRIPT = (Path(__file__).parent / "facts.sh").read_text


@record
class UnitFacts:
    """A systemd unit of ours."""

    active: str  # active | inactive | failed | activating …
    started: str = ""  # the digest of what it was last started with by us


@record
class NodeFacts:
    """What the API says of a node."""

    ready: bool
    version: str
    pod_range: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    unschedulable: bool = False
    own_labels: tuple[str, ...] = ()  # those that we put there
    own_taints: tuple[str, ...] = ()


@record
class Facts:
    """One machine, as it was when it was asked."""

    values: Mapping[str, str]  # os, architecture, hostname, …: the script says which
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # path: sha256, mode
    units: Mapping[str, UnitFacts] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)  # folder: sha256 of its manifest
    ports: Mapping[int, str] = field(default_factory=dict)  # who listens
    addresses: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)  # name: path
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)  # by a control plane alone
    addons: str = ""  # the digest of the manifests last applied, by a control plane alone
    members: tuple[str, ...] = ()  # etcd's, by a control plane alone

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    def number(self, name: str) -> int:
        """A number among the values; 0 where there is none."""
        text = self.values.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def script(*, api: bool) -> str:
    """The shell script that prints a machine's facts. It changes nothing.

    With ``api`` a control plane says, too, what the API and etcd know.
    """
    return ("ASK_API=1\n" if api else "") + filled(SCRIPT())


def filled(text: str) -> str:
    """A script of ours with what it has to know of this module."""
    words = {
        "@FOLDER@": FOLDER,
        "@SETS@": SETS,
        "@ADMIN@": ADMIN,
        "@LABELS@": OWN_LABELS,
        "@TAINTS@": OWN_TAINTS,
        "@ETCDCTL@": ETCDCTL,
    }
    for word, meant in words.items():
        text = text.replace(word, meant)
    return text


def parse(text: str, machine: str) -> Facts:
    """Read the script's answer. Raises RemoteError when it is cut short."""
    lines = text.splitlines()
    if not lines or lines[-1] != _END:
        raise RemoteError(f"{machine}: its facts came cut short", machine=machine)
    values: dict[str, str] = {}
    rows: dict[str, list[list[str]]] = {}
    for line in lines[:-1]:
        word, _, rest = line.partition(" ")
        if "=" in word:
            name, _, value = line.partition("=")
            values[name] = value.strip()
        else:
            rows.setdefault(word, []).append(rest.split())
    return Facts(
        values,
        files=_files(rows.get("file", [])),
        units={row[0]: UnitFacts(row[1], (*row, "")[2]) for row in rows.get("unit", []) if row[1:]},
        sets={row[1]: row[0] for row in rows.get("set", []) if len(row) == 2},
        ports=_ports(rows.get("port", [])),
        addresses=tuple(row[0] for row in rows.get("address", []) if row),
        programs={row[0]: row[1] for row in rows.get("program", []) if len(row) == 2},
        nodes=dict(_node(row) for row in rows.get("node", []) if len(row) == 9),
        addons=next((row[0] for row in rows.get("addons", []) if row), ""),
        members=tuple(row[0] for row in rows.get("member", []) if row),
    )


def _files(rows: list[list[str]]) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    modes: dict[str, int] = {}
    for row in rows:
        if len(row) == 2 and row[0].isalnum():  # digest, path
            found[row[1]] = (row[0], 0)
        elif len(row) == 3 and row[0] == "mode":
            modes[row[2]] = _octal(row[1])
    return {path: (digest, modes.get(path, 0)) for path, (digest, _) in found.items()}


def _octal(text: str) -> int:
    return int(text, 8) if text and set(text) <= set("01234567") and len(text) < 8 else 0


def _ports(rows: list[list[str]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in rows:
        place = row[0].rpartition(":")[2] if row else ""
        if place.isascii() and place.isdigit() and len(place) < 6:
            found[int(place)] = row[1] if row[1:] else ""
    return found


def _node(row: list[str]) -> tuple[str, NodeFacts]:
    """``name ready version podCIDR labels taints unschedulable ours ours``; ``-`` is none."""
    name, ready, version, pods, labels, taints, closed, own_labels, own_taints = (
        "" if word == "-" else word for word in row
    )
    return name, NodeFacts(
        ready == "True",
        version,
        pods,
        dict(_pair(word) for word in labels.split(",") if word),
        _words(taints.replace("=:", ":")),
        closed == "true",
        _words(own_labels),
        _words(own_taints),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value
