"""The choice of a region: its numbered cases, and what must hold for every fleet."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose, estimate, load_penalty_ms


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
