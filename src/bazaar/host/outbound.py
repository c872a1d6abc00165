"""The way from containers to the world: masquerading by an nftables table per bazaar.

The host forwards for the interfaces concerned only, and only while such a table exists.
Which of them did not forward before is kept in the table's comment, in the kernel: it
survives whatever happens to us, and goes with the last table.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from bazaar.errors import CommandError, NetworkError
from bazaar.host import commands, locks, namespaces
from bazaar.typed import Any

_COMMENT = re.compile(r'comment "forwarding was off: ([^"]*)"')


# On packets that may go to whom nobody else may: our own machines, for one.
_LET_IN = 0xBA2AA2


def allow(
    table: str,
    network: IPv4Network,
    inside: str,
    routes: list[dict[str, Any]] | None = None,
    *,
    reach: Collection[str] = (),
) -> None:
    """Let ``network``, behind the host's interface ``inside``, reach what the host reaches.

    Also the addresses of ``reach``, where another table guards them. The interface may come later:
    then it is for the caller to have it `forward`. ``routes`` are the host's, where the caller has
    just read them.
    """
    with locks.of_machine("outbound"):
        ways = _default_interfaces(routes)
        tables = _tables()
        recorded = {way for other in tables for way in _recorded(other)}
        changed = [
            way
            for way in ways
            if way in recorded or namespaces.read_sysctl(_forwarding(way)) == "0"
        ]
        text = ruleset(table, network, inside, changed, reach)
        if table in tables:
            # Replaced in one step. Where there is none, that step would cost 15 ms for nothing.
            text = f"delete table ip {table}\n{text}"
        _nft(text)
        for way in changed:
            forward(way)
    if namespaces.interface_exists(inside):
        forward(inside)


def forward(interface: str) -> None:
    """Have the host forward what arrives at an interface."""
    namespaces.sysctl(_forwarding(interface), "1")


def allowed(table: str) -> bool:
    """Whether a table of this name lets somebody out now."""
    return table in _tables()


def forbid(table: str) -> None:
    """Take the way to the world away again, and forwarding with the last who needs it."""
    if commands.which("nft") is None:
        return
    with locks.of_machine("outbound"):
        tables = _tables()
        if table not in tables:
            return
        ways = _recorded(table)
        needed = {way for other in tables if other != table for way in _recorded(other)}
        for way in ways:
            if way not in needed and namespaces.interface_exists(way):
                namespaces.sysctl(_forwarding(way), "0")
        _nft(f"delete table ip {table}\n")


def ruleset(
    table: str,
    network: IPv4Network,
    inside: str,
    changed: list[str],
    reach: Collection[str] = (),
) -> str:
    """The nftables text of a new table."""
    guarded = ", ".join(f'"{way}"' for way in changed)
    # What forwards because of us alone must carry nothing but our answers.
    guard = [f"    iifname {{ {guarded} }} drop"] if changed else []
    let_in: list[str] = []
    if reach:
        mark = f"meta mark set {_LET_IN:#x}"
        them = ", ".join(str(IPv4Address(one)) for one in sorted(reach))
        let_in = [
            f"  set reached {{ type ipv4_addr; elements = {{ {them} }}; }}",
            "  chain prerouting {",
            "    type filter hook prerouting priority mangle; policy accept;",
            f'    iifname "{inside}" ip saddr {network} ip daddr @reached {mark}',
            "  }",
        ]
    return "\n".join(
        [
            f"table ip {table} {{",
            f'  comment "forwarding was off: {" ".join(changed)}"',
            "  chain forward {",
            "    type filter hook forward priority filter; policy accept;",
            # The way out may take less than an Ethernet frame (tunnels, clouds).
            f'    iifname "{inside}" tcp flags syn tcp option maxseg size set rt mtu',
            "    ct state established,related accept",
            f'    iifname "{inside}" accept',
            f'    oifname "{inside}" meta mark != {_LET_IN:#x} drop',
            *guard,
            "  }",
            *let_in,
            "  chain postrouting {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            f'    ip saddr {network} oifname != "{inside}" masquerade',
            "  }",
            "}",
            "",
        ]
    )


def _nft(text: str) -> str:
    try:
        return commands.run(["nft", "-f", "-"], text=text, package="nftables").output
    except CommandError as error:
        raise NetworkError(f"nftables refused our rules: {error.message}") from error


def _tables() -> list[str]:
    listing = commands.run(["nft", "list", "tables"], package="nftables", check=False).output
    return re.findall(r"^table ip (bazaar_[A-Za-z0-9_-]+)$", listing, re.MULTILINE)


def _recorded(table: str) -> list[str]:
    listing = commands.run(["nft", "list", "table", "ip", table], check=False).output
    found = _COMMENT.search(listing)
    return found[1].split() if found else []


def _default_interfaces(routes: list[dict[str, Any]] | None) -> list[str]:
    if routes is None:
        routes = namespaces.query("route show default")
    # Routes of other tables than the main one name theirs.
    return sorted(
        {
            str(route["dev"])
            for route in routes
            if route.get("dst") == "default" and "dev" in route and "table" not in route
        }
    )


def _forwarding(interface: str) -> str:
    return f"net/ipv4/conf/{interface}/forwarding"
