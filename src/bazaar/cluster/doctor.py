"""What is wrong with a cluster, machine by machine, each with its remedy: one script asks for all.

Preflight (clock, disk, swap, what does not run), what kube-bench looks at (flags, settings, modes
of files), certificates, etcd's members and whether names are answered. Pure from `parse` on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from bazaar.cluster import checks, doctor_rules, pki
from bazaar.cluster import facts as ask
from bazaar.cluster.description import Cluster, Node
from bazaar.cluster.facts import Facts
from bazaar.errors import BazaarError, RemoteError
from bazaar.model.record import field, record

Progress = Callable[[str], None]
SPACE_KIB = 1 << 20  # less is too little for what runs
_HEX = set("0123456789abcdef")
_SPACE_PERCENT = 85  # kubelet throws images away from here on
_END = "end=doctor"
_SCRIPT = (Path(__file__).parent / "doctor.sh").read_text


@record
class Finding:
    """One thing that is not as it should be, and what helps."""

    node: str  # "": the cluster's
    severity: str  # fail | warning
    what: str
    remedy: str
    number: str = ""  # in the CIS benchmark, where it is one of its checks


@record
class Answer:
    """What one machine told its doctor."""

    facts: Facts
    age: float  # by how many seconds its clock is ahead of ours
    modes: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # path: mode, owner
    certificates: tuple[tuple[str, str], ...] = ()  # path, base64 of PEM
    flags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by program
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # mount: KiB free, % used
    failed: tuple[str, ...] = ()  # units that are none of ours, too
    dns: Mapping[str, str] = field(default_factory=dict)  # who asked: the answer's first bytes
    etcd: tuple[Mapping[str, Any], ...] = ()
    alarms: tuple[str, ...] = ()


def examine(cluster: Cluster, progress: Progress) -> tuple[int, list[Finding]]:
    """Ask all machines; how many answered, and all that was found, the worst first."""
    progress(f"{cluster.name}: asking {len(cluster.nodes)} machines")
    answers = asyncio.run(_ask(cluster))
    told = {name: one for name, one in answers.items() if isinstance(one, Answer)}
    found: list[Finding] = []
    for node in cluster.nodes:
        answer = answers[node.name]
        if isinstance(answer, Answer):
            found += findings(cluster, node, answer)
        else:
            found.append(Finding(node.name, "fail", answer.message, answer.hint or "is it up?"))
    found += of_all(cluster, told)
    order = {node.name: number for number, node in enumerate(cluster.nodes)}
    return len(told), sorted(
        found, key=lambda one: (one.severity != "fail", order.get(one.node, -1), one.number)
    )


async def _ask(cluster: Cluster) -> dict[str, Answer | BazaarError]:
    from bazaar.host import remote

    async def one(node: Node) -> Answer | BazaarError:
        try:
            async with remote.connect(node.machine, timeout=5) as there:
                text = script(cluster, api=node.bears)
                result = await there.run(text, root=True, what="looking for faults")
                now = time.time() - result.seconds
                return parse(result.output, node.name, now)
        except BazaarError as error:
            return error

    answers = await asyncio.gather(*map(one, cluster.nodes))
    return {node.name: answer for node, answer in zip(cluster.nodes, answers, strict=True)}


def script(cluster: Cluster, *, api: bool) -> str:
    """The shell script that prints all there is to know. It changes nothing."""
    name = f"kubernetes.default.svc.{cluster.domain}"
    # RFC 1035: an id, "recursion desired", one question and nothing else; type A, class IN.
    body = bytes.fromhex("622a 0100 0001 0000 0000 0000")
    for label in name.split("."):
        body += bytes([len(label)]) + label.encode()
    body += bytes.fromhex("0000010001")
    question = "".join(f"\\{byte:03o}" for byte in len(body).to_bytes(2, "big") + body)
    text = ask.filled(_SCRIPT()).replace("@DNS@", cluster.dns_ip).replace("@QUESTION@", question)
    return f"{ask.script(api=api)}\n{text}"


def parse(text: str, machine: str, now: float) -> Answer:
    """Read the answer. Raises RemoteError when it is cut short."""
    told, end, rest = text.partition("end=facts\n")
    lines = rest.splitlines()
    if not end or not lines or lines[-1] != _END:
        raise RemoteError(f"{machine}: what it found came cut short", machine=machine)
    facts = ask.parse(f"{told}{end}", machine)
    rows: dict[str, list[list[str]]] = {}
    for line in lines:
        word, _, said = line.partition(" ")
        rows.setdefault(word, []).append(said.split(" "))
    flags: dict[str, dict[str, str]] = {}
    for row in rows.get("flag", []):
        name, equals, value = " ".join(row[1:]).removeprefix("--").partition("=")
        flags.setdefault(row[0], {})[name] = value if equals else "true"
    settings = [line.removeprefix("kubelet|") for line in lines if line.startswith("kubelet|")]
    return Answer(
        facts,
        _number(facts.value("clock"), now) - now,
        {" ".join(r[2:]): (_octal(r[0]), r[1]) for r in rows.get("mode", []) if len(r) > 2},
        tuple((r[0], r[1]) for r in rows.get("certificate", []) if len(r) == 2),
        flags,
        _settings("\n".join(settings)),
        {r[2]: (int(r[0]), int(r[1].rstrip("%"))) for r in rows.get("space", []) if _space(r)},
        tuple(r[0] for r in rows.get("failed", [])),
        {r[0]: "".join(r[1:]) for r in rows.get("dns", []) if set("".join(r[1:])) <= _HEX},
        _health(next((" ".join(row) for row in rows.get("etcd", [])), "")),
        tuple(" ".join(r) for r in rows.get("alarm", []) if any(r)),
    )


def findings(cluster: Cluster, node: Node, answer: Answer) -> Iterator[Finding]:
    """What is wrong with one machine."""

    def fail(what: str, remedy: str, number: str = "") -> Finding:
        return Finding(node.name, "fail", what, remedy, number)

    def warn(what: str, remedy: str, number: str = "") -> Finding:
        return Finding(node.name, "warning", what, remedy, number)

    facts = answer.facts
    if not facts.value("identity"):
        yield fail("is no part of the cluster", "`bazaar cluster apply` makes it one")
        return
    if abs(answer.age) > checks.CLOCK_SECONDS:
        way = "ahead" if answer.age > 0 else "behind"
        yield fail(
            f"its clock is {abs(answer.age):.0f} s {way}", "`timedatectl set-ntp true` there"
        )
    for mount, (free, used) in answer.space.items():
        said = f"{free >> 10} MiB are free below {mount}, {used} % are used"
        if free < SPACE_KIB:
            yield fail(said, "free space there, or give it a larger disk")
        elif used >= _SPACE_PERCENT:
            yield warn(said, "free space there: kubelet throws images away from 85 % on")
    if facts.number("swap_kib"):
        yield warn("has swap: memory limits mean less", "`swapoff -a`, and out of /etc/fstab")
    if facts.value("cgroup") == "1":
        yield warn(
            "runs cgroup v1, which Kubernetes only just keeps",
            "boot it with systemd.unified_cgroup_hierarchy=1",
        )
    yield from _running(answer, fail)
    yield from _keys(answer, fail, warn)
    yield from _files(answer, fail)
    yield from _rules(answer, fail, warn)


def _running(answer: Answer, fail: Callable[..., Finding]) -> Iterator[Finding]:
    ours = {name for name, unit in answer.facts.units.items() if unit.active != "active"}
    for name in sorted(ours):
        state = answer.facts.units[name].active
        yield fail(
            f"{name} is {state}",
            f"`journalctl -u {name}` there says why; `bazaar cluster apply` starts it",
        )
    for name in answer.failed:
        if name not in ours:
            yield fail(f"{name} has failed", f"`systemctl status {name}` there says why")
    for who, said in answer.dns.items():
        # RFC 1035, after the length: id, flags with the code in their last four bits, counts.
        code = int(said[11], 16) if len(said) >= 28 else None
        if code != 0 or int(said[16:20], 16) == 0:
            why = "no answer" if code is None else f"code {code}"
            yield fail(
                f"a {who} finds no names by the Service kube-dns: {why}",
                "`journalctl -u coredns` and `-u kube-proxy` there say why",
            )


def _keys(
    answer: Answer, fail: Callable[..., Finding], warn: Callable[..., Finding]
) -> Iterator[Finding]:
    import base64

    from cryptography import x509

    now = time.time()
    for path, text in answer.certificates:
        try:
            chain = x509.load_pem_x509_certificates(base64.b64decode(text))
        except ValueError:
            yield fail(f"{path} holds no certificate", "`bazaar cluster apply` writes it again")
            continue
        left = min(one.not_valid_after_utc.timestamp() for one in chain) - now
        said = f"the certificate in {path}"
        renewal = "certs rotate --ca" if path.endswith("ca.crt") else "apply"
        if left < 0:
            said = f"{said} ended {-left / 86400:.0f} days ago"
            yield fail(said, f"`bazaar cluster {renewal}`")
        elif left < pki.RENEW_DAYS * 86400:
            yield warn(f"{said} ends in {left / 86400:.0f} days", f"`bazaar cluster {renewal}`")


def _files(answer: Answer, fail: Callable[..., Finding]) -> Iterator[Finding]:
    for path, (mode, owner) in answer.modes.items():
        file = next(one for one in doctor_rules.FILES if fnmatchcase(path, one.pattern))
        most = file.most | (0o111 if mode & 0o111 and file.most & 0o044 else 0)
        if mode & ~most:
            remedy = f"`chmod {most:o} {path}` there, or apply"
            yield fail(f"{path} has mode {mode:o}", remedy, file.by_mode)
        if owner != "root:root":
            remedy = f"`chown root:root {path}` there"
            yield fail(f"{path} belongs to {owner}", remedy, file.by_owner)


def _rules(
    answer: Answer, fail: Callable[..., Finding], warn: Callable[..., Finding]
) -> Iterator[Finding]:
    for rule in doctor_rules.RULES:
        given = answer.flags.get(rule.component)
        if given is None or rule.unless in given:
            continue
        if not rule.test(given.get(rule.flag)):
            make = warn if rule.warning else fail
            said = f"{rule.component}: {rule.said} (--{rule.flag})"
            yield make(said, rule.remedy, rule.number)
    for setting in doctor_rules.SETTINGS if answer.kubelet else ():
        if not setting.test(setting.value(answer.kubelet)):
            make = warn if setting.warning else fail
            yield make(f"kubelet: {setting.said}", setting.remedy, setting.number)


def of_all(cluster: Cluster, answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """What is wrong with the cluster as a whole: the API, its nodes, etcd."""
    planes = [answers[n.name] for n in cluster.nodes if n.bears and n.name in answers]
    known = next((one.facts.nodes for one in planes if one.facts.nodes), None)
    if known is None:
        yield Finding("", "fail", "no control plane answers for the API", "`bazaar cluster apply`")
    for node in cluster.members if known is not None else ():
        seen = known.get(node.name) if known else None
        if seen is None:
            yield Finding(node.name, "fail", "is not registered", "`bazaar cluster apply`")
        elif not seen.ready:
            remedy = f"`kubectl describe node {node.name}` says why"
            yield Finding(node.name, "fail", "is not ready", remedy)
    members = next((one.etcd for one in planes if one.etcd), ())
    for member in members:
        if not member.get("health"):
            said = f"etcd: {member.get('endpoint', '')} is unhealthy: {member.get('error', '')}"
            yield Finding("", "fail", said, "`journalctl -u etcd` there; `bazaar cluster apply`")
    holders = cluster.stores
    if known is not None and members and len(members) != len(holders):
        said = f"etcd has {len(members)} members on {len(holders)} machines"
        yield Finding("", "fail", said, "`bazaar cluster apply` takes the missing ones in")
    for alarm in next((one.alarms for one in planes if one.alarms), ()):
        remedy = "compact and defragment it, then `etcdctl alarm disarm`"
        yield Finding("", "fail", f"etcd: {alarm}", remedy)


# ------------------------------------------------------------------ foreign words


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise


def _octal(text: str) -> int:
    return int(text, 8) if text and set(text) <= set("01234567") and len(text) < 8 else 0


def _space(row: list[str]) -> bool:
    return len(row) == 3 and row[0].isdecimal() and row[1].rstrip("%").isdecimal()


def _settings(text: str) -> Mapping[str, Any]:
    from yaml import YAMLError, safe_load

    try:
        found = safe_load(text)
    except (YAMLError, ValueError, RecursionError):  # a date that is none is a ValueError
        return {}
    return found if isinstance(found, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]


def _health(text: str) -> tuple[Mapping[str, Any], ...]:
    import json

    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    listed = cast("list[Any]", found) if isinstance(found, list) else []
    return tuple(cast("Mapping[str, Any]", one) for one in listed if isinstance(one, dict))
