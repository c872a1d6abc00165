"""What a cluster costs on the way: round trips and bytes, by machine, on few and on many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar.cluster import binaries, vault
from bazaar.errors import SpecError
from bazaar.host import machines
from bazaar.up import clusters
from bazaar.up.cluster_request import Request
from tests.cluster.pods import QUIET
from tests.cluster.relay import Relay, relayed
from tests.cluster.simulated import Machines, simulated
from tests.host.conftest import need_machines

pytestmark = [
    pytest.mark.xdist_group("cluster-round-trips"),
    pytest.mark.timeout(3600),
]  # programs may be built first
LATENCY = 0.05  # seconds, each way


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAZAAR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(vault.KEY_FILE, str(tmp_path / "key"))
    return tmp_path


@pytest.fixture
def fresh(state: Path) -> Iterator[machines.LocalMachine]:
    need_machines()
    clusters.programs(binaries.VERSIONS[0], QUIET)
    try:
        (made,) = clusters.make_machines(1, QUIET)
        yield made
    finally:
        machines.destroy(None, QUIET)


def through(relay: Relay, machine: machines.LocalMachine, folder: Path) -> Request:
    known = folder / "known_hosts"
    key = Path(machine.machine.known_hosts).read_text().split()[1:]
    known.write_text(f"[127.0.0.1]:{relay.port} {' '.join(key)}\n")
    return Request(
        name="far",
        machines=[f"m1=127.0.0.1:{relay.port}"],
        key=machine.machine.key,
        known_hosts=str(known),
    )


def test_a_far_machine_is_asked_few_times(fresh: machines.LocalMachine, state: Path):
    with relayed(fresh.machine.address, latency=LATENCY) as relay:
        asked = through(relay, fresh, state)
        outcome = clusters.apply(asked, QUIET)
        # A connection, the facts, four phases, the API; whatever is written there.
        assert relay.turns / 2 <= 60, outcome.phases
        before = relay.turns
        assert clusters.plan(asked, QUIET)[1] == []
        assert (relay.turns - before) / 2 <= 15


@pytest.fixture
def counted(state: Path) -> dict[int, tuple[Machines, Machines]]:
    """What `plan` and `apply` said to 10 and to 50 machines."""
    sets = clusters.programs(binaries.VERSIONS[0], QUIET)
    found: dict[int, tuple[Machines, Machines]] = {}
    for count in (10, 50):
        with simulated(count, state / str(count), sets) as made:
            asked = Request(
                name=f"of-{count}",
                machines=made.places,
                key=made.key,
                known_hosts=made.known_hosts,
            )
            assert len(clusters.plan(asked, QUIET)[1]) > count
            planned = Machines([], "", "", list(made.sessions), list(made.payload))
            made.forget()
            clusters.apply(asked, QUIET)
            found[count] = planned, made
    return found


def test_many_machines_cost_each_of_them_no_more(
    counted: dict[int, tuple[Machines, Machines]],
):
    for few, many in zip(counted[10], counted[50], strict=True):
        # The first one asks the API on behalf of all.
        assert many.sessions[1:] == [*few.sessions[1:3], *[few.sessions[-1]] * 47]
        assert many.sessions[0] == few.sessions[0]
        assert max(many.sessions) <= 8
        assert sum(many.payload) <= 1.3 * 5 * sum(few.payload)


def test_a_clock_that_is_behind_is_told_before_anything_is_changed(state: Path):
    sets = clusters.programs(binaries.VERSIONS[0], QUIET)
    with simulated(2, state / "late", sets, late=300) as made:
        asked = Request(
            name="late", machines=made.places, key=made.key, known_hosts=made.known_hosts
        )
        with pytest.raises(SpecError, match=r"n0 \(10.1.0.1\): its clock is 300 s behind"):
            clusters.apply(asked, QUIET)
        assert made.sessions == [1, 1]
