"""Which standbys a running call should have: better ones where there are any, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.standbys import Guarded, is_good, plan_standbys
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.again import Recorded
from app.placement.belief import Prior
from app.placement.choice import Measured, Wishes

REGIONS = ("us-east", "us-west", "eu-west", "ap-south")


def uuid(number: int) -> UUID:
    return UUID(int=number)


def edge(number: int, region: str, **more: object) -> EdgeState:
    given = {"health": "healthy", "admin_state": "active", "calls": 0, "capacity_calls": 10} | more
    return EdgeState(
        id=uuid(number), region=region, name=f"e{number}", incarnation=uuid(1_000 + number), media_url="ws://m",
        http_url="http://h", **given,  # type: ignore[arg-type]
    )  # fmt: skip


def fleet(*edges: EdgeState, draining: str = "") -> Fleet:
    regions = {
        r: RegionState(
            id=r,
            jurisdiction=r[:2],
            admin_state="draining" if r == draining else "active",
            health="healthy",
        )
        for r in sorted({e.region for e in edges})
    }
    return Fleet(regions=regions, edges=edges)


A, B, C, D = (edge(i, r) for i, r in enumerate(REGIONS, start=1))
A2 = edge(5, "us-east")


def guarded(*standbys: EdgeState, owner: EdgeState = A, **more: object) -> Guarded:
    granted = tuple((e.id, e.incarnation) for e in standbys)
    given = {"call_id": uuid(99), "epoch": 1, "granted": 1 + len(standbys)} | more
    return Guarded(edge_id=owner.id, standbys=granted, **given)  # type: ignore[arg-type]


def renewed(on: Fleet, call: Guarded) -> list[str]:
    """The names of the edges of its new ticket; none where it needs none."""
    plan = plan_standbys(on, [call], draw=0.3)
    return [e.name for e in plan[0].edges] if plan else []


def test_two_good_standbys_elsewhere_are_left_alone() -> None:
    near = {"ap-south": Measured(rtt_ms=1)}
    assert renewed(fleet(A, B, C, D), guarded(B, C, measured=near)) == []


def test_a_call_whose_measurements_are_gone_is_given_standbys_that_were_near_when_it_was_placed() -> None:
    record = {
        r: Prior(ms, "history", 0.9) for r, ms in (("us-west", 30.0), ("eu-west", 60.0), ("ap-south", 90.0))
    }
    assert renewed(fleet(A, B, C, D), guarded(recorded=Recorded(record))) == ["e2", "e3"]


def test_a_standby_that_is_drained_cordoned_lost_or_restarted_is_replaced_and_the_good_one_named_again() -> (
    None
):
    near = {"ap-south": Measured(rtt_ms=20), "eu-west": Measured(rtt_ms=10)}
    call = guarded(B, C, measured=near)
    assert renewed(fleet(A, B, C, D, draining="us-west"), call) == ["e3", "e4"]
    for bad in (
        replace(B, admin_state="cordoned"),
        replace(B, admin_state="draining"),
        replace(B, draining=True),
        replace(B, health="suspect", action="evacuate"),
        replace(B, health="down"),
        replace(B, refusing=True),
        replace(B, health="down", incarnation=uuid(7)),
    ):
        assert renewed(fleet(A, bad, C, D), call) == ["e3", "e4"], bad
    assert renewed(fleet(A, C, D), call) == ["e3", "e4"], "unknown by now"
    restarted = fleet(A, replace(B, incarnation=uuid(7)), C)
    assert renewed(restarted, call) == ["e3", "e2"], "its new life takes the place of the old one"


def test_an_edge_in_doubt_is_not_left_for_that() -> None:
    assert renewed(fleet(A, replace(B, health="suspect"), C, D), guarded(B, C)) == []


def test_a_standby_that_a_takeover_has_used_up_is_replaced() -> None:
    assert renewed(fleet(A, B, C, D), guarded(C, owner=B, epoch=2)) in (["e3", "e1"], ["e3", "e4"])


def test_with_nothing_better_nothing_is_done() -> None:
    assert renewed(fleet(A, B), guarded(B)) == []
    assert renewed(fleet(A, replace(B, health="down")), guarded(B)) == []
    assert renewed(fleet(A, B, replace(C, calls=10)), guarded(B)) == [], "full"


def test_another_edge_of_the_same_region_is_better_than_none_and_worse_than_another_region() -> None:
    assert renewed(fleet(A, A2, replace(B, health="down")), guarded(B)) == ["e5"]
    assert renewed(fleet(A, A2), guarded(A2)) == []
    assert renewed(fleet(A, A2, B), guarded(A2)) == ["e2", "e5"]
    assert renewed(fleet(A, A2, B), guarded(B, A2)) == []


def test_residency_holds_for_standbys_and_a_pin_does_not() -> None:
    on = fleet(A, replace(B, health="down"), C, D)
    assert renewed(on, guarded(B, wishes=Wishes(jurisdictions=frozenset({"us", "ap"})))) == ["e4"]
    assert renewed(on, guarded(B, wishes=Wishes(allow=frozenset({"us-east"})))) == []
    assert len(renewed(on, guarded(B, wishes=Wishes(pin="us-east")))) == 2
    assert len(renewed(on, guarded(B, wishes=Wishes(rtt_ms_max=1.0)))) == 2, "too far is better than none"


def test_an_owner_that_is_down_or_unknown_hands_nothing_on() -> None:
    assert renewed(fleet(replace(A, health="down"), B, C, D), guarded(B)) == []
    assert renewed(fleet(B, C, D), guarded(B)) == []


STATES = st.sampled_from(
    [{}, {"health": "down"}, {"health": "suspect"}, {"admin_state": "cordoned"}, {"calls": 10}]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(REGIONS), STATES), min_size=1, max_size=7),
    st.lists(st.integers(1, 7), max_size=3),
)
def test_new_grants_are_good_distinct_not_the_owners_and_enough_for_good(
    places: list[tuple[str, dict[str, object]]], standbys: list[int]
) -> None:
    edges = [A, *(edge(10 + i, region, **state) for i, (region, state) in enumerate(places))]
    on = fleet(*edges)
    call = guarded(*(edges[i % len(edges)] for i in standbys))
    plan = plan_standbys(on, [call], draw=0.5)
    for renewal in plan:
        ids = [e.id for e in renewal.edges]
        assert 1 <= len(ids) <= 2 and len(set(ids)) == len(ids) and A.id not in ids
        assert all(is_good(on, e) for e in renewal.edges)
        again = replace(
            call, standbys=call.standbys + tuple((e.id, e.incarnation) for e in renewal.edges), granted=9
        )
        assert plan_standbys(on, [again], draw=0.1) == (), "once is enough"
