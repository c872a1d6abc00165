"""What this machine needs for each layer: what is there, what for, and how to get the rest.

What the kernel must be able to do is listed, and tried, in `kernel_features`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from bazaar.errors import BazaarError, MissingError
from bazaar.host import commands, packages
from bazaar.spec.resolved import ResolvedBazaar
from bazaar.up.kernel_features import FEATURES, Feature

Progress = Callable[[str], None]

LAYERS = ("run", "site", "trace", "shield", "drill", "machines")


@dataclass(frozen=True, slots=True)
class Need:
    """One thing a layer needs of the machine."""

    name: str
    kind: str  # privilege | kernel | program | engine
    layers: tuple[str, ...]
    purpose: str
    present: bool
    found: str = ""  # what is there, or what is wrong
    remedy: str = ""  # how to get it
    package: str | None = None  # Debian's, where installing it is enough
    essential: bool = False  # without it no service runs


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row of the table below."""

    name: str
    layers: tuple[str, ...]
    purpose: str
    essential: bool = False


PROGRAMS: dict[str, tuple[str, Wanted]] = {  # program → Debian's package
    "ip": (
        "iproute2",
        Wanted("ip", ("site", "run", "machines"), "namespaces, links, addresses", True),
    ),
    "unshare": ("util-linux", Wanted("unshare", ("run", "site"), "trying kernel features", True)),
    "haproxy": ("haproxy", Wanted("haproxy", ("site",), "the balance over replicas", True)),
    "dnsmasq": ("dnsmasq-base", Wanted("dnsmasq", ("site",), "names of services", True)),
    "nft": (
        "nftables",
        Wanted("nft", ("site", "drill", "machines"), "the way out; the shield's rival"),
    ),
    "mmdebstrap": (
        "mmdebstrap",
        Wanted("mmdebstrap", ("run", "machines"), "images of Debian packages", True),
    ),
    "skopeo": ("skopeo", Wanted("skopeo", ("run",), "images of registries")),
    "runc": ("runc", Wanted("runc", ("run",), "containers on the host's kernel", True)),
    "wrk": ("wrk", Wanted("wrk", ("drill",), "legitimate clients in drills")),
    "systemd-nspawn": (
        "systemd-container",
        Wanted("systemd-nspawn", ("machines",), "local machines with systemd and SSH"),
    ),
    "zstd": ("zstd", Wanted("zstd", ("run",), "images of registries packed by it")),
}


def needs(layers: Collection[str] = LAYERS) -> list[Need]:
    """Everything those layers need, each looked for; takes about a tenth of a second."""
    found = [_privilege(), *_kernel(), *_programs(), *_engines()]
    return [need for need in found if set(need.layers) & set(layers)]


def for_bazaar(wanted: ResolvedBazaar) -> list[Need]:
    """What one bazaar needs; essential is what its own services cannot run without."""
    layers = {"run", "site"}
    layers |= {"trace"} if wanted.probes else set()
    layers |= {"shield"} if wanted.shield else set()
    kernels = {service.kernel for service in wanted.services}
    schemes = {service.image.partition(":")[0] for service in wanted.services}
    registries = schemes - {"deb", "oci", "dir"}
    used = {
        "gvisor": "own" in kernels,
        "runc": "shared" in kernels,
        "mmdebstrap": "deb" in schemes,
        "skopeo": bool(registries) or "oci" in schemes,
    }
    return [
        replace(need, essential=used.get(need.name, need.essential))
        for need in needs(layers)
        if used.get(need.name, True)
    ]


def missing(found: Iterable[Need]) -> list[Need]:
    """Those that are not there."""
    return [need for need in found if not need.present]


def ensure(found: Sequence[Need], progress: Progress) -> list[Need]:
    """Get what can be got of what is missing; what is missing still, none of it essential.

    All packages come by one call of apt. Raises MissingError that names every essential need
    which is not there and how to get it. What nothing can be done about (privileges, the
    kernel) is told before anything is installed.
    """
    lacking = missing(found)
    _refuse([need for need in lacking if need.kind in ("privilege", "kernel")])
    problems: dict[str, str] = {}
    wanted = list(dict.fromkeys(need.package for need in lacking if need.package))
    if wanted and packages.installable():
        try:
            packages.install(wanted, progress)
        except BazaarError as error:
            # Whether that matters is seen by what is missing afterwards. Without the programs
            # no engine is of use: building one would only take time.
            problems = {need.name: error.message for need in lacking if need.package}
            _refuse([need for need in _left(found, problems) if need.package])
    for need in lacking:
        if need.kind == "engine":
            problems |= _get_engine(need.name, progress)
    left = _left(found, problems) if lacking else []
    _refuse(left)
    return left


def _refuse(lacking: Iterable[Need]) -> None:
    hard = [need for need in lacking if need.essential]
    if not hard:
        return
    reasons: dict[str, list[str]] = {}
    for need in hard:
        reasons.setdefault(need.found or "missing", []).append(f"{need.name} ({need.purpose})")
    lines = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    remedies = dict.fromkeys(need.remedy for need in hard if need.remedy)
    one = "apt-get install "
    if names := [remedy.removeprefix(one) for remedy in remedies if remedy.startswith(one)]:
        others = (remedy for remedy in remedies if not remedy.startswith(one))
        remedies = dict.fromkeys([one + " ".join(names), *others])
    raise MissingError(f"this machine lacks {'; '.join(lines)}", hint="\n".join(remedies) or None)


def _left(found: Sequence[Need], problems: dict[str, str]) -> list[Need]:
    """Those of the same needs that are missing now, looked for again."""
    essential = {need.name: need.essential for need in found}
    return [
        replace(need, essential=essential[need.name], found=problems.get(need.name, need.found))
        for need in missing(needs())
        if need.name in essential
    ]


def _get_engine(name: str, progress: Progress) -> dict[str, str]:
    from bazaar.run import engines

    try:
        engines.ensure(name, progress)
    except BazaarError as error:
        return {name: error.message}
    return {}


def _privilege() -> Need:
    present = os.geteuid() == 0
    return Need(
        "root",
        "privilege",
        LAYERS,
        "namespaces, control groups, BPF",
        present,
        "" if present else f"user {os.geteuid()}",
        "" if present else "run it by sudo",
        essential=True,
    )


def _programs() -> list[Need]:
    found: list[Need] = []
    debian = packages.system().debian
    for program, (package, wanted) in PROGRAMS.items():
        path = commands.which(program)
        how = f"apt-get install {package}" if debian else f"install {program} (Debian: {package})"
        found.append(
            Need(
                wanted.name,
                "program",
                wanted.layers,
                wanted.purpose,
                path is not None,
                path or "",
                "" if path else how,
                None if path else package,
                wanted.essential,
            )
        )
    return found


def _engines() -> list[Need]:
    from bazaar.run import engines

    found: list[Need] = []
    for status in engines.available():
        if status.name == "shared":
            continue  # runc stands among the programs
        found.append(
            Need(
                status.name,
                "engine",
                ("run",),
                status.isolation,
                status.problem is None,
                status.problem or str(status.path or ""),
                "" if status.problem is None else status.hint or "bazaar doctor --fix gets it",
                essential=True,
            )
        )
    return found


def _kernel() -> list[Need]:
    if os.geteuid() != 0:
        return []  # every feature would fail for want of root, which is told already
    return [_feature(feature) for feature in FEATURES]


def _feature(feature: Feature) -> Need:
    problem = feature.problem()
    return Need(
        feature.name,
        "kernel",
        feature.layers,
        feature.purpose,
        problem is None,
        problem or "",
        "" if problem is None else feature.remedy,
        essential=feature.essential,
    )
