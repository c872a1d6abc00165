"""Addresses: steady for what stays, lowest free for what is new."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import NetworkError
from bazaar.up import layout

NAMES = st.lists(st.sampled_from([f"n{number}" for number in range(20)]), unique=True, max_size=12)


def test_first_numbers():
    made = layout.extend(layout.Layout("10.44.0.0/16"), {"u": None, "k": None}, ["apache", "db"])
    assert made.sites == {"u": "10.44.1.0/24", "k": "10.44.2.0/24"}
    assert made.front("apache") == "10.44.0.10"
    assert made.front("db") == "10.44.0.11"
    assert made.free_address("u", set()) == "10.44.1.10"
    assert made.free_address("u", {"10.44.1.10"}) == "10.44.1.11"


def test_asked_subnet_is_kept_free_for_its_site():
    made = layout.extend(layout.Layout("10.44.0.0/16"), {"a": None, "b": "10.44.1.0/24"}, [])
    assert made.sites == {"a": "10.44.2.0/24", "b": "10.44.1.0/24"}


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({"u": "10.44.9.0/24"}, "sites.u.subnet: the site is up with 10.44.1.0/24, not 10.44.9.0"),
        ({"u": None, "k": "10.44.1.0/24"}, "sites.k.subnet: the site u is up with 10.44.1.0/24"),
        ({"k": "10.44.1.0/24"}, "sites.k.subnet: the site u is up with 10.44.1.0/24"),
    ],
)
def test_what_is_up_keeps_its_subnet(sites, message):
    known = layout.extend(layout.Layout("10.44.0.0/16"), {"u": None}, [])
    with pytest.raises(NetworkError, match=message):
        layout.extend(known, sites, [])


def test_a_full_site_says_so():
    made = layout.extend(layout.Layout("10.44.0.0/16"), {"u": None}, [])
    taken = {str(address) for address in ipaddress.ip_network("10.44.1.0/24")}
    with pytest.raises(NetworkError, match="site u: all"):
        made.free_address("u", taken)


@given(NAMES, NAMES, NAMES, NAMES)
def test_what_stays_keeps_its_numbers(sites, fronts, later_sites, later_fronts):
    start = layout.extend(layout.Layout("10.9.0.0/16"), dict.fromkeys(sites), fronts)
    later = layout.extend(start, dict.fromkeys(later_sites), later_fronts)
    assert list(later.sites) == later_sites
    assert list(later.fronts) == later_fronts
    for name in set(sites) & set(later_sites):
        assert later.sites[name] == start.sites[name]
    for name in set(fronts) & set(later_fronts):
        assert later.fronts[name] == start.fronts[name]
    assert len(set(later.sites.values())) == len(later.sites)
    assert len(set(later.fronts.values())) == len(later.fronts)
    assert layout.from_json(later.to_json()) == later
