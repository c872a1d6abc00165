import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import BazaarError, UsageError
from bazaar.shield import addresses


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("fe80::1:2", "fe80::1:2"),
    ],
)
def test_a_source_is_an_ipv4_address_or_an_ipv6_64(address: str, shown: str) -> None:
    assert addresses.text(addresses.key(address)) == shown


@pytest.mark.parametrize(
    ("network", "bits", "shown"),
    [
        ("192.0.2.7", 128, "192.0.2.7/32"),
        ("10.0.0.0/8", 104, "10.0.0.0/8"),
        ("0.0.0.0/0", 96, "0.0.0.0/0"),
        ("2001:db8::/32", 32, "2001:db8::/32"),
        ("2001:db8::1", 64, "2001:db8::/64"),
        ("fe80::1", 128, "fe80::1/128"),
    ],
)
def test_networks_become_keys_of_prefix_tries(network: str, bits: int, shown: str) -> None:
    raw = addresses.prefix(addresses.network(network))
    assert len(raw) == 20
    assert struct.unpack_from("=I", raw) == (bits,)
    assert addresses.unprefix(raw) == shown


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_our_error(text: str) -> None:
    for read in (addresses.key, addresses.network):
        try:
            read(text)
        except BazaarError as error:
            assert isinstance(error, UsageError)


@given(st.ip_addresses())
def test_an_address_lies_in_the_source_it_belongs_to(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    source = ipaddress.ip_network(addresses.text(addresses.key(str(address))))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert (mapped or address) in source
