"""The choice of a region: its numbered cases, and what must hold for every fleet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import hypothesis
from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.verdicts import ORDER
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import Prior
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose, estimate
from app.placement.newest import Newest
from app.placement.policy import Policy, policy_of
from app.placement.sites import load_penalty_ms


def region(
    name: str, health: str = "healthy", admin: str = "active", jurisdiction: str = "us"
) -> RegionState:
    return RegionState(id=name, jurisdiction=jurisdiction, admin_state=admin, health=health)


def edge(name: str, n: int = 1, calls: int = 0, capacity: int = 10, health: str = "healthy") -> EdgeState:
    return EdgeState(
        id=UUID(int=hash((name, n)) % (1 << 64)), region=name, name=f"e{n}", incarnation=UUID(int=n), media_url="ws://x",
        http_url="http://x", capacity_calls=capacity, calls=calls, health=health,
    )  # fmt: skip


def fleet(*pairs: tuple[RegionState, list[EdgeState]]) -> Fleet:
    return Fleet(regions={r.id: r for r, _ in pairs}, edges=tuple(e for _, es in pairs for e in es))


def near(**rtts: float) -> dict[str, Measured]:
    return {name: Measured(rtt_ms=rtt) for name, rtt in rtts.items()}


A, B, C = (region("a"), [edge("a")]), (region("b"), [edge("b")]), (region("c"), [edge("c")])


def reasons(placed: Placement | NoPlacement) -> dict[str, str]:
    return {c.region: c.reason for c in placed.candidates}


def test_the_nearest_wins_and_the_others_are_costlier() -> None:
    placed = choose(fleet(A, B, C), near(a=100, b=20, c=60), Wishes(), draw=0.5)
    assert isinstance(placed, Placement)
    assert placed.region == "b"
    assert [e.region for e in placed.edges] == ["b", "c", "a"]
    assert reasons(placed) == {"b": "chosen", "a": "costlier", "c": "costlier"}
    assert placed.protection == "full"


def test_of_two_as_good_the_less_loaded_is_taken() -> None:
    busy = (region("a"), [edge("a", calls=6)])
    placed = choose(fleet(busy, B), near(a=20, b=25), Wishes(), draw=0.0)
    assert isinstance(placed, Placement)
    assert placed.region == "b"
    assert reasons(placed)["a"] == "two_choices"


def test_each_exclusion_is_on_record() -> None:
    others = [
        (region("d", admin="cordoned"), [edge("d")]), (region("e"), [edge("e", health="down")]),
        (region("f"), [edge("f", calls=10)]), (region("g", jurisdiction="eu"), [edge("g")]),
    ]  # fmt: skip
    wishes = Wishes(jurisdictions=frozenset({"us"}), rtt_ms_max=70)
    placed = choose(fleet(A, B, *others), near(a=20, b=90), wishes, draw=0.1)
    assert reasons(placed) == {
        "a": "chosen", "b": "too_far", "d": "cordoned", "e": "unhealthy", "f": "full", "g": "not_allowed",
    }  # fmt: skip


def test_a_pin_binds_the_primary_and_not_its_standbys() -> None:
    placed = choose(fleet(A, B, C), near(a=100, b=20, c=60), Wishes(pin="a"), draw=0.5)
    assert isinstance(placed, Placement)
    assert [e.region for e in placed.edges] == ["a", "b", "c"]


def test_preferred_within_twice_the_band_beats_the_cheapest() -> None:
    placed = choose(fleet(A, B), near(a=20, b=38), Wishes(prefer=("b",)), draw=0.5)
    assert isinstance(placed, Placement)
    assert placed.region == "b"


def test_panic_lets_suspects_take_calls_when_most_look_ill() -> None:
    ill = [(region(n, health="suspect"), [edge(n, health="suspect")]) for n in ("b", "c")]
    placed = choose(fleet(A, *ill), near(a=200, b=10, c=20), Wishes(), draw=0.0)
    assert isinstance(placed, Placement)
    assert placed.panic
    assert placed.region in ("b", "c")


def test_too_few_regions_fall_back_to_another_edge_and_say_so() -> None:
    placed = choose(fleet((region("a"), [edge("a", 1), edge("a", 2)])), {}, Wishes(), draw=0.0)
    assert isinstance(placed, Placement)
    assert [e.region for e in placed.edges] == ["a", "a"]
    assert placed.protection == "reduced"
    assert placed.protection_reason


def test_none_allowed_none_healthy_all_full() -> None:
    assert getattr(choose(fleet(A), {}, Wishes(allow=frozenset({"x"})), draw=0), "why", "") == "residency"
    assert (
        getattr(choose(fleet((region("a"), [edge("a", health="down")])), {}, Wishes(), draw=0), "why", "")
        == "unhealthy"
    )
    assert (
        getattr(choose(fleet((region("a"), [edge("a", calls=10)])), {}, Wishes(), draw=0), "why", "")
        == "full"
    )


def test_what_a_picture_says_is_summed_up_once_also_where_cells_take_turns() -> None:
    made: list[Fleet] = []
    newest = Newest(lambda of: made.append(of) or len(made), kept=2)  # type: ignore[func-returns-value]
    one, other, third = fleet(A), fleet(A), fleet(A)
    assert [newest.of(f) for f in (one, other, one, other, one)] == [1, 2, 1, 2, 1]
    assert newest.of(third) == 3
    assert [newest.of(f) for f in (other, third, one)] == [2, 3, 4]
    assert made[3] is one


def test_a_measurement_ages_towards_the_prior() -> None:
    fresh, old = estimate(Measured(rtt_ms=20)), estimate(Measured(rtt_ms=20, age_s=120))
    assert fresh[1] == 20
    assert 20 < old[1] < 150
    assert estimate(Measured(rtt_ms=20, age_s=601))[0] == "prior"


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_load_penalty_only_grows(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert load_penalty_ms(low) <= load_penalty_ms(high)


NAMES = ("a", "b", "c", "d", "e")
PLACES = st.lists(
    st.tuples(
        st.sampled_from(("healthy", "suspect", "down")), st.sampled_from(("active", "cordoned")), st.integers(0, 10),
        st.floats(1, 500),
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(PLACES, st.floats(0, 0.999999))
def test_whatever_the_fleet_a_placement_is_sound(
    places: list[tuple[str, str, int, float]], draw: float
) -> None:
    pairs = [
        (region(n, h, s), [edge(n, calls=c, health=h)])
        for n, (h, s, c, _) in zip(NAMES, places, strict=False)
    ]
    measured = {n: Measured(rtt_ms=p[3]) for n, p in zip(NAMES, places, strict=False)}
    placed = choose(fleet(*pairs), measured, Wishes(), draw=draw)
    assert len(placed.candidates) == len(places)
    assert all(c.reason for c in placed.candidates)
    if isinstance(placed, Placement):
        assert [c.region for c in placed.candidates if c.reason == "chosen"] == [placed.region]
        assert len({e.id for e in placed.edges}) == len(placed.edges) <= 3
        assert all(e.calls < e.capacity_calls and e.health != "down" for e in placed.edges)


def test_a_region_that_was_not_measured_is_not_taken_for_nearer_than_those_that_were() -> None:
    placed = choose(fleet(A, B, C), near(b=400), Wishes(), draw=0.5)
    assert isinstance(placed, Placement)
    assert placed.region == "b"
    assert {c.source for c in placed.candidates if c.region != "b"} == {"prior"}


# ------------------------------------------------------------------------------------- what the operator asks of it


def by(regions: Mapping[str, int], capacity: int = 10) -> Fleet:
    """One edge in each region, with so many calls."""
    return fleet(*((region(r), [edge(r, calls=c, capacity=capacity)]) for r, c in regions.items()))


def placed_in(placed: Placement | NoPlacement) -> Placement:
    assert isinstance(placed, Placement), placed
    return placed


def test_what_is_kept_for_a_lost_region_is_not_given_to_new_calls() -> None:
    reserve = Policy(reserve=True)
    four = by({"a": 8, "b": 2, "c": 2, "d": 2})
    placed = placed_in(choose(four, near(a=5, b=80, c=90, d=95), Wishes(), draw=0.5, policy=reserve))
    assert placed.region == "b"
    assert reasons(placed)["a"] == "reserved"
    assert [e.region for e in placed.edges[1:]] == [
        "a",
        "c",
    ]  # a standby may use it: this is what it is kept for
    assert placed_in(choose(four, near(a=5, b=80, c=90, d=95), Wishes(), draw=0.5)).region == "a"


def test_where_all_are_as_full_the_reserve_is_used_rather_than_refused() -> None:
    for wishes in (Wishes(), Wishes(allow=frozenset({"a"})), Wishes(pin="a")):
        crowded = by({"a": 9, "b": 9, "c": 9})
        placed = placed_in(
            choose(crowded, near(a=5, b=90, c=95), wishes, draw=0.5, policy=Policy(reserve=True))
        )
        assert placed.region == "a"


def test_two_regions_keep_a_third_and_not_a_half() -> None:
    policy = Policy(reserve=True)
    assert (
        placed_in(choose(by({"a": 6, "b": 0}), near(a=5, b=99), Wishes(), draw=0.5, policy=policy)).region
        == "a"
    )
    assert (
        placed_in(choose(by({"a": 7, "b": 0}), near(a=5, b=99), Wishes(), draw=0.5, policy=policy)).region
        == "b"
    )


def test_a_region_that_ramps_up_takes_its_share() -> None:
    policy, draws = Policy(weights={"a": 0.25}), 4_000
    three = by({"a": 0, "b": 0, "c": 0})
    took = [
        placed_in(choose(three, near(a=5, b=60, c=90), Wishes(), draw=i / draws, policy=policy))
        for i in range(draws)
    ]
    share = sum(p.region == "a" for p in took) / draws
    assert abs(share - 0.25) < 0.02
    assert {reasons(p)["a"] for p in took} == {"chosen", "ramping"}
    assert all("a" in [e.region for e in p.edges[1:]] for p in took if p.region != "a")
    alone = choose(three, {}, Wishes(allow=frozenset({"a"})), draw=0.99, policy=policy)
    assert placed_in(alone).region == "a"


def test_regions_of_a_group_are_as_near_as_its_nearest() -> None:
    policy = Policy(groups={"a": "coast", "b": "coast"})
    busy = by({"a": 6, "b": 0, "c": 0})
    placed = placed_in(choose(busy, near(a=20, b=90, c=70), Wishes(), draw=0.5, policy=policy))
    assert placed.region == "b"
    assert reasons(placed) == {"b": "chosen", "a": "two_choices", "c": "costlier"}
    other = placed_in(choose(busy, near(a=90, b=95, c=20), Wishes(), draw=0.5, policy=policy))
    assert other.region == "c"  # a group that the nearest is not of does not count


def test_a_price_has_to_be_nearer_by_so_many_milliseconds() -> None:
    policy = Policy(price_ms={"a": 50.0})
    cheap = placed_in(choose(by({"a": 0, "b": 0}), near(a=20, b=55), Wishes(), draw=0.5, policy=policy))
    worth = placed_in(choose(by({"a": 0, "b": 0}), near(a=20, b=85), Wishes(), draw=0.5, policy=policy))
    assert (cheap.region, worth.region) == ("b", "a")
    assert {c.region: c.cost_ms for c in cheap.candidates} == {"a": 70.0, "b": 55.0}


def test_the_way_to_the_backend_is_part_of_the_cost_and_what_is_not_known_of_it_is_average() -> None:
    legs = {"a": 100.0, "b": 2.0}
    placed = placed_in(
        choose(by({"a": 0, "b": 0, "c": 0}), near(a=20, b=60, c=90), Wishes(), draw=0.5, backend_ms=legs)
    )
    assert placed.region == "b"
    assert {c.region: (c.cost_ms, c.backend_ms) for c in placed.candidates} == {
        "a": (120.0, 100.0), "b": (62.0, 2.0), "c": (141.0, None),
    }  # fmt: skip


def test_the_region_that_served_the_network_before_goes_on_while_it_is_as_good() -> None:
    three = by({"a": 0, "b": 0, "c": 0})
    for last, chosen in (("b", "b"), ("c", "a"), ("gone", "a"), (None, "a")):
        placed = placed_in(choose(three, near(a=20, b=28, c=60), Wishes(), draw=0.5, last=last))
        assert placed.region == chosen, last
    busy = by({"a": 0, "b": 5, "c": 0})
    assert placed_in(choose(busy, near(a=20, b=28, c=60), Wishes(), draw=0.5, last="b")).region == "a"


def test_a_cap_gives_way_to_the_first_step_that_some_region_meets() -> None:
    three = by({"a": 0, "b": 0, "c": 0})
    for most, relax, cap, chosen in (
        (100.0, (), 100.0, "a"), (50.0, (80.0, 300.0), 80.0, "a"), (50.0, (60.0, 300.0), 300.0, "a"), (50.0, (60.0,), None, None),
    ):  # fmt: skip
        wishes = Wishes(rtt_ms_max=most, rtt_ms_relax=relax)
        placed = choose(three, near(a=70, b=150, c=310), wishes, draw=0.5)
        if chosen is None:
            assert getattr(placed, "why", "") == "too_far"
        else:
            assert (placed_in(placed).region, placed_in(placed).rtt_ms_cap) == (chosen, cap)
            far = {r for r, rtt in (("a", 70), ("b", 150), ("c", 310)) if cap is not None and rtt > cap}
            assert {r for r, why in reasons(placed).items() if why == "too_far"} == far
            assert not far & {e.region for e in placed_in(placed).edges}


def test_a_full_region_does_not_meet_a_cap() -> None:
    placed = placed_in(
        choose(by({"a": 10, "b": 0}), near(a=20, b=90), Wishes(rtt_ms_max=50, rtt_ms_relax=(100,)), draw=0.5)
    )
    assert (placed.region, placed.rtt_ms_cap, reasons(placed)["a"]) == ("b", 100, "full")


def test_what_is_believed_stands_where_nothing_was_measured() -> None:
    priors = {
        "a": Prior(30.0, "history", 0.9),
        "b": Prior(20.0, "alike", 0.4),
        "c": Prior(80.0, "geography", 0.2),
    }
    three = by({"a": 0, "b": 0, "c": 0})
    placed = placed_in(choose(three, near(b=200), Wishes(), draw=0.5, priors=priors))
    assert placed.region == "a"
    assert {c.region: (c.source, c.confidence) for c in placed.candidates} == {
        "a": ("history", 0.9), "b": ("measured", 1.0), "c": ("geography", 0.2),
    }  # fmt: skip


def test_stale_loads_of_many_instances_crowd_no_edge_of_a_region() -> None:
    """Eight instances that have seen the same loads place 800 calls before they look again: each edge gets about its share."""
    edges = [edge("a", n, calls=n % 3, capacity=200) for n in range(20)]
    seen, chance, got = fleet((region("a"), edges)), random.Random(4), Counter[UUID]()
    for _ in range(8 * 100):
        got[placed_in(choose(seen, {}, Wishes(), draw=chance.random())).edges[0].id] += 1
    assert len(got) > 10
    assert (
        max(got.values()) <= 2.5 * 800 / 20
    )  # of two choices the one that looks emptier: at most twice the share, and chance


# ----------------------------------------------------------------------------------------------- all of it together

HEALTH = st.sampled_from(("healthy", "healthy", "healthy", "probation", "suspect", "down"))
ADMIN = st.sampled_from(("active", "active", "active", "cordoned", "draining"))
REGION = st.fixed_dictionaries(
    {
        "jurisdiction": st.sampled_from(("us", "eu")),
        "admin": ADMIN,
        "edges": st.lists(st.tuples(HEALTH, st.integers(0, 12), st.booleans()), max_size=4),
        "rtt": st.none() | st.floats(0.1, 900),
        "age_s": st.floats(0, 1_000),
        "prior": st.none() | st.floats(0.1, 900),
        "leg": st.none() | st.floats(0.1, 300),
        "weight": st.sampled_from((0.0, 0.1, 0.5, 1.0)),
        "group": st.sampled_from(("", "", "north", "south")),
        "price": st.sampled_from((0.0, 0.0, 25.0)),
    }
)
WISHES = st.builds(
    Wishes,
    allow=st.frozensets(st.sampled_from(NAMES), max_size=3),
    jurisdictions=st.sampled_from((frozenset(), frozenset({"us"}), frozenset({"eu"}), frozenset({"in"}))),
    prefer=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
    pin=st.none() | st.sampled_from(NAMES),
    rtt_ms_max=st.none() | st.floats(1, 500),
    rtt_ms_relax=st.lists(st.floats(1, 900), max_size=3).map(lambda caps: tuple(sorted(caps))),
)
REASONS = {
    "chosen", "not_allowed", "not_pinned", "cordoned", "draining", "unhealthy", "full", "too_far", "ramping", "reserved", "costlier",
    "two_choices",
}  # fmt: skip
LEFT = {"chosen", "ramping", "reserved", "costlier", "two_choices"}


@settings(max_examples=400, deadline=None)
@given(
    st.lists(REGION, min_size=1, max_size=5), WISHES, st.floats(0, 1, exclude_max=True), st.none() | st.sampled_from(NAMES),
    st.booleans(),
)  # fmt: skip
def test_whatever_is_asked_every_region_has_one_reason_and_none_is_taken_that_is_not_allowed(
    regions: list[dict[str, Any]], wishes: Wishes, draw: float, last: str | None, reserve: bool
) -> None:
    named = dict(zip(NAMES, regions, strict=False))
    states, edges = {}, []
    for name, r in named.items():
        states[name] = RegionState(
            id=name, jurisdiction=r["jurisdiction"], admin_state=r["admin"], health="down", weight=r["weight"],
            proximity=r["group"], price_ms=r["price"],
        )  # fmt: skip
        for n, (health, calls, refusing) in enumerate(r["edges"]):
            weight = 0.5 if health == "probation" else 1.0
            edges.append(replace(edge(name, n, calls=calls, health=health), refusing=refusing, weight=weight))
        best = min((e[0] for e in r["edges"]), key=ORDER.index, default="down")
        states[name] = replace(states[name], health=best)
    seen = Fleet(regions=states, edges=tuple(edges))
    policy = replace(policy_of(states), reserve=reserve)
    placed = choose(
        seen,
        {n: Measured(rtt_ms=r["rtt"], age_s=r["age_s"]) for n, r in named.items() if r["rtt"]},
        wishes,
        draw=draw,
        priors={n: Prior(r["prior"], "history", 0.5) for n, r in named.items() if r["prior"]},
        backend_ms={n: r["leg"] for n, r in named.items() if r["leg"]},
        policy=policy,
        last=last,
    )
    assert sorted(c.region for c in placed.candidates) == sorted(named)
    assert {c.reason for c in placed.candidates} <= REASONS
    allowed = {
        n
        for n, r in named.items()
        if (not wishes.allow or n in wishes.allow)
        and (not wishes.jurisdictions or r["jurisdiction"] in wishes.jurisdictions)
    }
    assert {c.region for c in placed.candidates if c.reason == "not_allowed"} == set(named) - allowed
    if isinstance(placed, NoPlacement):
        assert not LEFT & {c.reason for c in placed.candidates}
        assert placed.why == "residency" if not allowed else placed.why in ("unhealthy", "full", "too_far")
        return
    assert [c.region for c in placed.candidates if c.reason == "chosen"] == [placed.region]
    assert {e.region for e in placed.edges} <= allowed
    assert wishes.pin in (None, placed.region)
    assert len({e.id for e in placed.edges}) == len(placed.edges) <= 3
    assert all(e.calls < e.capacity_calls for e in placed.edges)
    assert all(states[e.region].admin_state == "active" and e.health != "down" for e in placed.edges)
    assert placed.panic or all(e.health in ("healthy", "probation") for e in placed.edges)
    assert (
        placed.protection == ("none", "reduced", "full")[len({e.region for e in placed.edges}) - 1]
        or placed.protection_reason
    )
    if placed.rtt_ms_cap is not None:
        rtts = {c.region: c.rtt_ms for c in placed.candidates}
        assert rtts[placed.region] <= placed.rtt_ms_cap + 0.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(10, 60), min_size=3, max_size=6), st.integers(0, 10_000))
def test_a_fleet_filled_by_new_calls_has_room_for_the_loss_of_any_region(
    capacities: list[int], seed: int
) -> None:
    """I9, wherever no region has more than a third of all: new calls leave so much that the calls of any region fit elsewhere."""
    size = dict(zip("abcdef", capacities, strict=False))
    hypothesis.assume(3 * max(capacities) <= sum(capacities))
    calls, chance, policy = dict.fromkeys(size, 0), random.Random(seed), Policy(reserve=True)
    while True:
        seen = fleet(*((region(r), [edge(r, calls=c, capacity=size[r])]) for r, c in calls.items()))
        rtts = {r: Measured(rtt_ms=chance.uniform(5, 300)) for r in calls}
        placed = placed_in(choose(seen, rtts, Wishes(), draw=chance.random(), policy=policy))
        if calls[placed.region] / size[placed.region] >= 1 - max(capacities) / sum(capacities):
            break  # nothing but what is kept is left anywhere
        calls[placed.region] += 1
        for lost in calls:
            room = sum(size[r] - c for r, c in calls.items() if r != lost)
            assert calls[lost] <= room + len(calls), (lost, calls, size)  # each was one call below its line
    assert all("reserved" not in reason for reason in reasons(placed).values())


def test_a_caller_over_webrtc_is_placed_only_where_that_is_served() -> None:
    beside = replace(edge("b", 2), webrtc=True)
    mixed = fleet(A, (region("b"), [edge("b"), beside]), (region("c"), [replace(edge("c"), webrtc=True)]))
    placed = choose(mixed, near(a=1, b=20, c=60), Wishes(webrtc=True), draw=0.5)
    assert isinstance(placed, Placement)
    assert [(e.region, e.webrtc) for e in placed.edges] == [("b", True), ("c", True)]
    assert reasons(placed)["a"] == "unhealthy"
    other = choose(mixed, near(a=1, b=20, c=60), Wishes(), draw=0.5)
    assert placed_in(other).region == "a"
    none = choose(fleet(A), {}, Wishes(webrtc=True), draw=0.5)
    assert isinstance(none, NoPlacement)


def test_a_caller_that_can_go_nowhere_gets_no_standby() -> None:
    placed = choose(fleet(A, B, C), near(a=1), Wishes(alone=True), draw=0.5)
    assert isinstance(placed, Placement)
    assert ([e.region for e in placed.edges], placed.protection) == (["a"], "none")


@given(st.lists(st.floats(1, 500), min_size=3, max_size=3), st.floats(0, 1), st.floats(0, 0.999999))
def test_belief_has_no_weight_where_all_was_measured_just_now(
    believed: list[float], confidence: float, draw: float
) -> None:
    """So whoever places such a call need not ask it."""
    three = fleet(A, B, C)
    measured = near(a=20, b=24, c=180)
    priors = {n: Prior(ms, "history", confidence) for n, ms in zip("abc", believed, strict=True)}
    without = choose(three, measured, Wishes(), draw=draw)
    assert choose(three, measured, Wishes(), draw=draw, priors=priors) == without
