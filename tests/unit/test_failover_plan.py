"""The failover plan: no edge beyond its room, nothing placed twice, live calls before new ones, lots bounded and drawn alike."""

from __future__ import annotations

import math
from collections import Counter
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.failover_plan import Desired, FailoverPlan, plan_failover
from app.fleet.plan import Leaving
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.choice import Wishes
from tests.bench.replacing import CALLS, check, lost_region

REGIONS = ("us-east", "us-west", "eu-west", "ap-south")
PACE = Desired(per_edge_per_s=10, headroom=0.25)
SLOT_MS = 100.0

EDGES = st.lists(
    st.tuples(
        st.sampled_from(REGIONS),
        st.integers(1, 12),
        st.integers(0, 12),
        st.sampled_from(("healthy", "healthy", "probation", "suspect", "down")),
        st.sampled_from(("active", "active", "cordoned", "draining")),
    ),
    min_size=1,
    max_size=9,
)
WISHES = st.builds(
    Wishes,
    allow=st.frozensets(st.sampled_from(REGIONS), max_size=2),
    jurisdictions=st.frozensets(st.sampled_from(("us", "eu", "ap")), max_size=2),
)


def edge_of(number: int, drawn: tuple[str, int, int, str, str]) -> EdgeState:
    region, capacity, calls, health, state = drawn
    return EdgeState(
        id=UUID(int=number), region=region, name=f"e{number}", incarnation=UUID(int=1), media_url="ws://m",
        http_url="http://h", capacity_calls=capacity, calls=min(calls, capacity), health=health, admin_state=state,
    )  # fmt: skip


def fleet_of(edges: list[EdgeState]) -> Fleet:
    regions = {
        r: RegionState(id=r, jurisdiction=r[:2], admin_state="active", health="healthy")
        for r in sorted({e.region for e in edges})
    }
    return Fleet(regions=regions, edges=tuple(edges))


def plan(
    fleet: Fleet, lost: frozenset[UUID], calls: list[Leaving], arriving: list[Leaving], **more: object
) -> FailoverPlan:
    given_ = {"reserved": {}, "desired": PACE, "seed": 7} | more
    return plan_failover(fleet, lost, calls, arriving, **given_)  # type: ignore[arg-type]


def test_nothing_lost_and_nobody_waiting_is_an_empty_plan() -> None:
    fleet, lost, _, _ = lost_region()
    assert plan(fleet, lost, [], []) == FailoverPlan()


@settings(max_examples=300, deadline=None)
@given(
    EDGES,
    st.lists(WISHES, max_size=30),
    st.lists(WISHES, max_size=15),
    st.integers(-(2**63), 2**63),
    st.data(),
)
def test_what_holds_of_every_plan(
    drawn: list[tuple[str, int, int, str, str]],
    live: list[Wishes],
    new: list[Wishes],
    seed: int,
    data: st.DataObject,
) -> None:
    edges = [edge_of(i, d) for i, d in enumerate(drawn, start=1)]
    lost = frozenset(e.id for e in data.draw(st.lists(st.sampled_from(edges), min_size=1, unique=True)))
    reserved = {e.id: data.draw(st.integers(0, 3)) for e in edges}
    calls = [
        Leaving(call_id=UUID(int=100 + i), epoch=1, edge_id=min(lost), wishes=w) for i, w in enumerate(live)
    ]
    if calls and data.draw(st.booleans()):
        calls.append(calls[0])
    arriving = [
        Leaving(call_id=UUID(int=500 + i), epoch=1, edge_id=UUID(int=0), wishes=w) for i, w in enumerate(new)
    ]
    fleet = fleet_of(edges)
    made = plan(fleet, lost, calls, arriving, reserved=reserved, seed=seed)
    known = {e.id: e for e in edges}

    said = [p.call_id for p in made.reconnect] + [s.call_id for s in made.stuck]
    assert Counter(said) == Counter({c.call_id for c in calls}), "each lost call once"
    assert Counter([*(p.call_id for p in made.admit), *made.defer]) == Counter(c.call_id for c in arriving)

    live_on = Counter(p.edges[0].id for p in made.reconnect)
    new_on = Counter(p.edges[0].id for p in made.admit)
    for edge_id in live_on | new_on:
        edge = known[edge_id]
        assert edge_id not in lost and edge.admin_state == "active" and edge.health != "down"
        before = edge.calls + reserved[edge_id] + live_on[edge_id]
        assert before <= edge.capacity_calls or not live_on[edge_id], "I9"
        if new_on[edge_id]:
            assert before + new_on[edge_id] <= math.floor(edge.capacity_calls * (1 - PACE.headroom))

    for edge_id in live_on | new_on:
        order = [p for p in (*made.reconnect, *made.admit) if p.edges[0].id == edge_id]
        for number, placed in enumerate(order):
            assert SLOT_MS * number <= placed.after_ms < SLOT_MS * (number + 1), (
                "one at a time, within its slot"
            )

    wishes = {c.call_id: c.wishes for c in (*calls, *arriving)}
    for placed in (*made.reconnect, *made.admit):
        wanted = wishes[placed.call_id]
        assert all(e.id not in lost for e in placed.edges)
        assert all(not wanted.allow or e.region in wanted.allow for e in placed.edges), "residency"
        assert all(not wanted.jurisdictions or e.region[:2] in wanted.jurisdictions for e in placed.edges)
    assert plan(fleet, lost, calls, arriving, reserved=reserved, seed=seed) == made, "every instance alike"
    alone = plan(fleet, lost, calls, [], reserved=reserved, seed=seed)
    assert (alone.reconnect, alone.stuck) == (made.reconnect, made.stuck), (
        "new calls take nothing from live ones"
    )


def test_the_loss_of_one_of_three_regions_leaves_everybody_a_place_and_no_herd() -> None:
    fleet, lost, calls, arriving = lost_region()
    made = plan_failover(fleet, lost, calls, arriving, reserved={}, desired=Desired(), seed=1)
    check(fleet, made)
    other = plan_failover(fleet, lost, calls[:100], [], reserved={}, desired=Desired(), seed=2)
    assert [p.after_ms for p in other.reconnect] != [p.after_ms for p in made.reconnect[:100]]
    seconds = Counter((p.edges[0].id, int(p.after_ms // 1000)) for p in made.reconnect)
    assert max(seconds.values()) <= Desired().per_edge_per_s
    assert len(made.reconnect) == CALLS


def test_new_calls_wait_where_only_the_headroom_is_free() -> None:
    edges = [
        edge_of(1, ("us-east", 10, 0, "down", "active")),
        edge_of(2, ("us-west", 8, 5, "healthy", "active")),
    ]
    lost = frozenset({edges[0].id})
    calls = [Leaving(call_id=UUID(int=100), epoch=1, edge_id=edges[0].id)]
    arriving = [Leaving(call_id=UUID(int=500 + i), epoch=1, edge_id=UUID(int=0)) for i in range(2)]
    made = plan(fleet_of(edges), lost, calls, arriving)
    assert [p.call_id for p in made.reconnect] == [UUID(int=100)]
    assert made.admit == () and made.defer == (UUID(int=500), UUID(int=501)), (
        "six of eight places are for new calls"
    )
    alone = plan(fleet_of(edges), lost, [], arriving)
    assert len(alone.admit) == 1 and len(alone.defer) == 1
