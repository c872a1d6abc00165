"""Plans: a pure function from two states to changes."""

from dataclasses import replace

import pytest

from bazaar.model.container import ContainerState
from bazaar.spec.resolved import (
    ResolvedBazaar,
    ResolvedProbe,
    ResolvedService,
    ResolvedShield,
    ResolvedSite,
    ResolvedVolume,
)
from bazaar.up import replicas
from bazaar.up.plan import Current, plan

WEB = ResolvedService("web", "deb://bookworm", sites=("u", "k"), replicas=2, port=80)
DATA = ResolvedService(
    "data", "deb://bookworm", sites=("k",), volumes=(ResolvedVolume("/data", name="d"),)
)
WANTED = ResolvedBazaar(
    "t",
    sites=(ResolvedSite("u"), ResolvedSite("k")),
    services=(WEB, DATA),
    probes=(ResolvedProbe("p", "BEGIN { exit(); }"),),
    shield=ResolvedShield(),
)


def container(service, slot, status="running", print_=None):
    return ContainerState(
        slot.container("t", 1),
        slot.name,
        "gvisor",
        status,
        labels=(
            ("service", slot.service),
            ("site", slot.site),
            ("number", str(slot.number)),
            ("fingerprint", print_ or replicas.fingerprint(service, {})),
        ),
    )


def there(wanted=WANTED, **changes):
    containers = tuple(
        container(service, slot) for service in wanted.services for slot in replicas.slots(service)
    )
    whole = Current(
        applied=wanted,
        sites=frozenset(site.name for site in wanted.sites),
        containers=containers,
        volumes=frozenset({"d"}),
        supervised=True,
        guarded=True,
    )
    return replace(whole, **changes)


def short(changes):
    return [(change.action, change.kind, change.name) for change in changes]


def test_from_nothing_everything_is_created():
    assert short(plan(WANTED, Current(), {})) == [
        ("create", "site", "u"),
        ("create", "site", "k"),
        ("create", "volume", "d"),
        ("create", "service", "web"),
        ("create", "service", "data"),
        ("create", "probe", "p"),
        ("create", "shield", "shield"),
    ]


def test_nothing_to_do():
    assert plan(WANTED, there(), {}) == []


def changed(**changes):
    return replace(WANTED, services=(replace(WEB, **changes), DATA))


@pytest.mark.parametrize(
    ("wanted", "expected", "why"),
    [
        (changed(replicas=3), ("update", "service", "web"), "replicas 4 → 6"),
        (changed(sites=("u",)), ("update", "service", "web"), "replicas 4 → 2"),
        (changed(command=("x",)), ("update", "service", "web"), "command"),
        (changed(nearest="u"), ("update", "service", "web"), "nearest"),
        (replace(WANTED, probes=()), ("destroy", "probe", "p"), ""),
        (replace(WANTED, shield=None), ("destroy", "shield", "shield"), ""),
        (replace(WANTED, shield=ResolvedShield(rate=5)), ("update", "shield", "shield"), ""),
        (replace(WANTED, services=(DATA,)), ("destroy", "service", "web"), ""),
        (replace(WANTED, sites=(ResolvedSite("u"),)), ("destroy", "site", "k"), ""),
    ],
)
def test_one_difference_is_one_change(wanted, expected, why):
    changes = plan(wanted, there(), {})
    assert short(changes) == [expected]
    assert changes[0].why == why


def test_a_secret_that_changed_makes_new_containers_and_is_not_shown():
    changes = plan(WANTED, there(), {"web": {"PASSWORD": "hunter2"}})
    assert short(changes) == [("update", "service", "web")]
    assert "hunter2" not in str(changes)


def test_without_supervisor_stopped_replicas_start_again():
    stopped = tuple(replace(one, status="stopped") for one in there().containers)
    changes = plan(WANTED, there(supervised=False, containers=stopped), {})
    assert short(changes) == [
        ("update", "service", "web"),
        ("update", "service", "data"),
        ("create", "supervisor", "t"),
    ]


def test_what_was_begun_but_not_finished_is_still_to_do():
    changes = plan(WANTED, there(applied=None), {})
    assert short(changes) == [("create", "probe", "p"), ("create", "shield", "shield")]


def test_a_supervisor_without_a_guardian_gets_one():
    changes = plan(WANTED, there(guarded=False), {})
    assert short(changes) == [("update", "supervisor", "t")]
    assert "guardian" in changes[0].why


def test_without_supervisor_and_applied_state_one_is_started():
    bare = replace(WANTED, probes=(), shield=None)
    current = there(bare, applied=None, supervised=False)
    assert short(plan(bare, current, {})) == [("create", "supervisor", "t")]
