"""What the other tests take for granted of the test runner."""

import os

import pytest


@pytest.mark.xdist_group("groups")
def test_a_group_is_kept_on_one_worker(request):
    """xdist sends tests to workers by the group at the end of their ids, where it can put it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process runs all tests here")
    assert request.node.nodeid.endswith("@groups")
