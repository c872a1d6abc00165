"""Names inside a bazaar: dnsmasq at the front answers for its services.

`schedule` and `schedule.fosdem.bazaar` are a service's front address, for every container
that has the resolv.conf made here. Other names go to the host's name servers, when the
bazaar may reach the world; else they do not exist.
"""

from __future__ import annotations

import contextlib
import pwd
import re
import signal
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

from bazaar.errors import CommandError, NetworkError
from bazaar.host import commands, files, locks, mounts, namespaces, paths, processes
from bazaar.host.processes import Identity
from bazaar.site import daemons, subnets
from bazaar.site.naming import UPLINK, front_namespace

_PROGRAM = "dnsmasq"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_SEEN_AT = "/mnt"  # where dnsmasq, in mounts of its own, sees its folder


def apply(bazaar: str, addresses: Mapping[str, str], *, upstream: Sequence[str] = ()) -> None:
    """Answer for exactly these service names; start dnsmasq if it does not run.

    ``upstream`` are the name servers asked for everything else. NetworkError when a name or
    address is none, or the front is missing.
    """
    front = front_namespace(bazaar)
    hosts = hosts_file(bazaar, addresses)
    with locks.of_machine(f"names-{bazaar}"):
        folder = _folder(bazaar)
        settings = configuration(bazaar, _listening(front), upstream)
        (folder / "hosts").mkdir(parents=True, exist_ok=True)
        running = _running(bazaar)
        stale = running is None or _read(folder / "dnsmasq.conf") != settings
        changed = _read(folder / "hosts" / "services") != hosts
        for part in (folder, folder / "hosts"):
            part.chmod(0o755)  # dnsmasq gives its privileges up before it reads
        if changed:
            files.write_atomic(folder / "hosts" / "services", hosts, 0o644)
        if stale:
            files.write_atomic(folder / "dnsmasq.conf", settings, 0o644)
            _start(front, folder)
        elif changed and running is not None:
            processes.send(running, signal.SIGHUP)


def keep(bazaar: str) -> bool:
    """Start dnsmasq again from its last configuration if it died; True when it had."""
    folder = _folder(bazaar)
    if not (folder / "dnsmasq.conf").exists() or _running(bazaar) is not None:
        return False
    with locks.of_machine(f"names-{bazaar}"):
        _start(front_namespace(bazaar), folder)
    return True


def running(bazaar: str) -> int | None:
    """The pid of the bazaar's dnsmasq, or None."""
    found = _running(bazaar)
    return found.pid if found else None


def stop(bazaar: str) -> None:
    """End the bazaar's dnsmasq and take its files away."""
    folder = _folder(bazaar)
    daemons.stop(_PROGRAM, _marker(folder))
    for file in (folder / "hosts" / "services", folder / "dnsmasq.conf", folder / "dnsmasq.pid"):
        file.unlink(missing_ok=True)
    for part in (folder / "hosts", folder):
        with contextlib.suppress(OSError):
            part.rmdir()


def resolv_conf(bazaar: str, subnet: str) -> str:
    """The /etc/resolv.conf of a container in the bazaar that has this /16."""
    front_namespace(bazaar)
    server = subnets.front_gateway(subnets.parse(subnet, 16))
    # One name server that is always near: ask again soon, not after five seconds.
    options = "timeout:1 attempts:3 ndots:1"
    return f"nameserver {server}\nsearch {bazaar.lower()}.bazaar\noptions {options}\n"


def hosts_file(bazaar: str, addresses: Mapping[str, str]) -> str:
    """The hosts(5) file dnsmasq answers from."""
    lines: list[str] = []
    for name, address in sorted(addresses.items()):
        if not _NAME.fullmatch(name):
            raise NetworkError(f"{name!r} cannot be a service's name in DNS")
        try:
            place = IPv4Address(address)
        except AddressValueError:
            raise NetworkError(f"{name}: {address!r} is no address") from None
        lines.append(f"{place} {name.lower()}.{bazaar.lower()}.bazaar {name.lower()}\n")
    return "".join(lines)


def configuration(bazaar: str, address: str, upstream: Sequence[str] = ()) -> str:
    """dnsmasq's configuration: authoritative for one zone, silent about the machine."""
    if not _NAME.fullmatch(bazaar):
        raise NetworkError(f"{bazaar!r} cannot be a domain's name")
    forward = [f"server={IPv4Address(one)}" for one in upstream]
    lines = [
        f"# Names of the bazaar {bazaar}: written by Bazaar, read by dnsmasq.",
        f"listen-address={address}",
        "bind-interfaces",
        "port=53",
        f"user={_user()}",
        "no-hosts",  # the host's own /etc/hosts is no business of a container
        "no-resolv",
        f"addn-hosts={_SEEN_AT}/hosts/services",
        # In both: what the hosts file lacks under this zone does not exist, nor do bare names.
        f"local=/{bazaar.lower()}.bazaar/",
        f"domain={bazaar.lower()}.bazaar",
        "domain-needed",
        "bogus-priv",
        "local-ttl=1",  # seconds; a service's address may move
        "cache-size=1000",
        "dns-forward-max=150",
        *forward,
        *([] if forward else ["local=//", "address=/#/"]),
    ]
    return "\n".join([*lines, ""])


def _start(front: str, folder: Path) -> None:
    daemons.stop(_PROGRAM, _marker(folder))
    program = commands.find(_PROGRAM, package="dnsmasq-base")

    def start() -> None:
        # dnsmasq reads its hosts file after it gave up root; the state folder's parents may
        # be closed to others, so it sees the folder at a place that is open.
        mounts.separate(folder, _SEEN_AT, without=paths.state())
        with namespaces.enter(front):
            commands.run([program, f"--conf-file={_SEEN_AT}/dnsmasq.conf", _marker(folder)])

    try:
        namespaces.aside(start)
    except CommandError as error:
        raise NetworkError(f"dnsmasq does not start: {error.message}") from error


def _running(bazaar: str) -> Identity | None:
    folder = _folder(bazaar)
    found = daemons.find(_PROGRAM, _marker(folder), folder / "dnsmasq.pid")
    return found if found and daemons.inside(found, front_namespace(bazaar)) else None


def _marker(folder: Path) -> str:
    return f"--pid-file={folder}/dnsmasq.pid"


def _folder(bazaar: str) -> Path:
    front_namespace(bazaar)  # refuses what is no name
    return paths.bazaar(bazaar) / "names"


def _listening(front: str) -> str:
    """The front's own address, by its uplink."""
    for link in namespaces.query(f"address show dev {UPLINK}", front):
        for entry in link.get("addr_info", []):
            if entry.get("family") == "inet" and entry.get("prefixlen") == 24:
                return str(subnets.front_gateway(IPv4Network(f"{entry['local']}/16", strict=False)))
    raise NetworkError(f"the front {front} has no address")


def _user() -> str:
    for name in ("dnsmasq", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return "root"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
