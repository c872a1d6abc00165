"""Which ports of a namespace are served: what listens there, by the kernel's own tables."""

from __future__ import annotations

from bazaar.host import namespaces

Port = tuple[str, int]

# net/tcp_states.h; an unconnected UDP socket shows as TCP_CLOSE.
_LISTEN, _UNCONNECTED = 0x0A, 0x07
_LIMIT = 4096  # ports; what a namespace would have to serve before this is too few is no front


def listening(namespace: str | None = None) -> frozenset[Port]:
    """The pairs (protocol, port) of sockets in the namespace that anyone may send to."""
    found: set[Port] = set()
    with namespaces.enter(namespace):
        for protocol, state in (("tcp", _LISTEN), ("udp", _UNCONNECTED)):
            for file in (protocol, f"{protocol}6"):
                try:
                    # /proc/net is the process' own; a thread's namespace is seen through this.
                    with open(f"/proc/thread-self/net/{file}", encoding="ascii") as table:
                        found |= parse(protocol, state, table.read())
                except FileNotFoundError:
                    continue  # a kernel without IPv6
    return frozenset(sorted(found)[:_LIMIT])


def parse(protocol: str, state: int, table: str) -> set[Port]:
    """Ports of the sockets in ``state``, without those bound to loopback (proc(5))."""
    found: set[Port] = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4 or int(fields[3], 16) != state:
            continue
        address, _, port = fields[1].rpartition(":")
        if not _loopback(address):
            found.add((protocol, int(port, 16)))
    return found


def _loopback(address: str) -> bool:
    # Words in the machine's byte order: 127.0.0.1 is 0100007F.
    if len(address) == 8:
        return bytes.fromhex(address)[3] == 127
    return address == "00000000000000000000000001000000"
