"""nftables doing the shield's job, to measure against: the best rules we know for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator

from bazaar.host import commands, namespaces
from bazaar.shield.settings import ShieldSpec

TABLE = "bazaar_opponent"
HOOKS = ("ingress", "prerouting")


def rules(hook: str, spec: ShieldSpec, interfaces: list[str]) -> str:
    """A ruleset at the ``ingress`` hook of devices, or at ``prerouting`` before conntrack."""
    names = ", ".join(json.dumps(name) for name in interfaces)
    if hook == "ingress":
        family, place = "netdev", f"hook ingress devices = {{ {names} }} priority -500"
        only = ""
    else:
        family, place = "inet", "hook prerouting priority -300"
        only = f"iifname != {{ {names} }} accept"
    allowed = ", ".join(item for item in spec.allow if ":" not in item)
    served = ", ".join(str(port) for protocol, port in spec.ports or () if protocol == "udp")
    datagrams = f"udp dport != {{ {served} }}" if served else "meta l4proto udp"
    elements = f"elements = {{ {allowed} }}" if allowed else ""
    budget = spec.budgets.unserved
    return f"""
table {family} {TABLE} {{
  set allowed {{ type ipv4_addr; flags interval; {elements} }}
  set blocked {{ type ipv4_addr; flags dynamic, timeout; timeout {spec.block_seconds:.0f}s; size 65536; }}
  set rates {{ type ipv4_addr; flags dynamic, timeout; timeout 10s; size 65536; }}
  chain door {{
    type filter {place}; policy accept;
    {only}
    ip saddr @allowed accept
    ip saddr @blocked drop
    {datagrams} limit rate over {budget}/second burst {budget} packets drop
    tcp flags & (syn | ack) == syn limit rate over {spec.budgets.syn}/second burst {spec.budgets.syn} packets drop
    update @rates {{ ip saddr limit rate over {spec.rate}/second burst {spec.depth} packets }} add @blocked {{ ip saddr }} drop
  }}
}}
"""  # noqa: E501 - nft's own lines


@contextlib.contextmanager
def nftables(
    hook: str, spec: ShieldSpec, interfaces: list[str], namespace: str | None
) -> Generator[None]:
    """Have the rules in force in the namespace; they are gone when the block is left."""
    family = "netdev" if hook == "ingress" else "inet"
    with namespaces.enter(namespace):
        commands.run(["nft", "-f", "-"], text=rules(hook, spec, interfaces), package="nftables")
    try:
        yield
    finally:
        with namespaces.enter(namespace):
            commands.run(["nft", "delete", "table", family, TABLE], check=False)
