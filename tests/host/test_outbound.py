"""The nftables text of a bazaar's way to the world; the kernel judges it."""

import os
from ipaddress import IPv4Network

import pytest

from bazaar.host import commands, namespaces, outbound
from tests.site import golden
from tests.site.conftest import needs

NETWORK = IPv4Network("10.44.0.0/16")


@pytest.mark.parametrize(
    ("name", "changed", "reach"),
    [
        ("outbound.nft", [], ()),
        ("outbound-guarded.nft", ["eth0", "wlan0"], ()),
        ("outbound-reach.nft", [], ("10.253.0.12", "10.253.0.11")),
    ],
)
def test_as_expected_and_accepted(name: str, changed: list[str], reach: tuple[str, ...]):
    text = outbound.ruleset("bazaar_fosdem", NETWORK, "bz0123456789abc", changed, reach)
    golden.check(name, text, "host")
    needs("nft")
    own = f"t{os.getpid()}-nft"
    namespaces.create(own)
    try:
        with namespaces.enter(own):
            commands.run(["nft", "-f", "-"], text=text)
            replaced = f"delete table ip bazaar_fosdem\n{text}"  # as `allow` does in one step
            commands.run(["nft", "-f", "-"], text=replaced)
            listing = commands.run(["nft", "list", "ruleset"]).output
            assert outbound._recorded("bazaar_fosdem") == changed  # pyright: ignore[reportPrivateUsage]
    finally:
        namespaces.delete(own)
    assert listing.count("masquerade") == 1
