"""Which subnet a bazaar gets, from what a machine has."""

import contextlib
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import NetworkError
from bazaar.host.ranges import Taken
from bazaar.site import subnets


def taken(*networks: str) -> list[Taken]:
    return [Taken(IPv4Network(one), "eth0", "interface eth0") for one in networks]


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([], "10.44.0.0/16"),
        (["192.168.1.0/24"], "10.44.0.0/16"),
        (["10.44.7.0/24"], "10.45.0.0/16"),
        (["10.44.0.1/32", "10.45.0.0/16"], "10.46.0.0/16"),
        (["10.40.0.0/13"], "10.48.0.0/16"),
    ],
)
def test_the_first_free(used: list[str], expected: str):
    assert str(subnets.first_free(taken(*used))) == expected


def test_nothing_free():
    with pytest.raises(NetworkError, match="no /16 .* is free"):
        subnets.first_free(taken("10.0.0.0/8"))


@given(st.text(max_size=40) | st.from_regex(r"\d{1,3}\.\d{1,3}\.0\.0/\d{1,2}", fullmatch=True))
def test_any_text_is_a_subnet_or_our_error(text: str):
    with contextlib.suppress(NetworkError):
        assert subnets.parse(text, 16).prefixlen == 16


def test_the_wrong_size_is_named():
    with pytest.raises(NetworkError, match="a /24; a /16 is needed"):
        subnets.parse("10.44.1.0/24", 16)
