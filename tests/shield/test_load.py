"""The clients' program: what it is asked."""

from __future__ import annotations

import pytest

from bazaar.shield import load


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://10.0.0.1/", "http://10.0.0.1:80/"),
        ("https://10.0.0.1/x?y=1", "https://10.0.0.1:443/x?y=1"),
        ("http://10.0.0.1:8000/", "http://10.0.0.1:8000/"),
        ("http://[fd00::1]/", "http://[fd00::1]:80/"),
    ],
)
def test_the_port_is_always_said(url, asked):
    assert load.with_port(url) == asked
