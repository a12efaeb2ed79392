"""The drain plan and the policy of commands: room is never given away twice, nobody is asked twice, and nothing is left unsaid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.plan import FAILURES_MAX, DrainPlan, Leaving, Pace, plan_drain
from app.fleet.policy import Target, refusal
from app.fleet.reserve import kept
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.again import Recorded
from app.placement.belief import Prior
from app.placement.choice import Measured, NoPlacement, Wishes, choose
from tests.bench.replacing import Evacuation

REGIONS = ("us-east", "us-west", "eu-west", "ap-south")


def uuid(number: int) -> UUID:
    return UUID(int=number)


def edge(number: int, region: str, *, capacity: int = 10, calls: int = 0, **more: object) -> EdgeState:
    given = {"health": "healthy", "admin_state": "active"} | more
    return EdgeState(
        id=uuid(number), region=region, name=f"e{number}", incarnation=uuid(1000 + number), media_url="ws://m",
        http_url="http://h", capacity_calls=capacity, calls=calls, **given,  # type: ignore[arg-type]
    )  # fmt: skip


def fleet(*edges: EdgeState, draining: str = "", health: str = "healthy") -> Fleet:
    regions = {
        r: RegionState(
            id=r, jurisdiction=r[:2], admin_state="draining" if r == draining else "active", health=health
        )
        for r in sorted({e.region for e in edges})
    }
    return Fleet(regions=regions, edges=edges)


def call(number: int, of: EdgeState, **more: object) -> Leaving:
    return Leaving(call_id=uuid(number), epoch=1, edge_id=of.id, **more)  # type: ignore[arg-type]


def plan(on: Fleet, calls: list[Leaving], *leaving: EdgeState, **more: object) -> DrainPlan:
    given = {"reserved": {}, "hurried": {}, "under_way": 0, "late": False, "pace": Pace(), "seed": 7} | more
    return plan_drain(on, calls, leaving=frozenset(e.id for e in leaving), **given)  # type: ignore[arg-type]


A, B, C = edge(1, "us-east"), edge(2, "us-west"), edge(3, "eu-west")


def test_nothing_to_leave_is_an_empty_plan() -> None:
    assert plan(fleet(A, B), [], A) == DrainPlan()


def test_a_call_goes_where_its_caller_is_near_with_a_standby_elsewhere() -> None:
    near = {"us-west": Measured(rtt_ms=200), "eu-west": Measured(rtt_ms=20)}
    [ask] = plan(fleet(A, B, C, draining="us-east"), [call(100, A, measured=near)], A).ask
    assert [e.id for e in ask.edges] == [C.id, B.id]


def test_a_call_whose_measurements_are_gone_goes_where_it_was_near_when_it_was_placed() -> None:
    """Also past the region that its backend is far from."""
    record = {
        "us-west": Prior(60, "measured", 1.0),
        "eu-west": Prior(20, "history", 0.9),
        "ap-south": Prior(50, "history", 0.9),
    }
    on = fleet(A, C, B, edge(4, "ap-south"), draining="us-east")
    [ask] = plan(on, [call(100, A, recorded=Recorded(record))], A).ask
    assert [e.region for e in ask.edges] == ["eu-west", "ap-south", "us-west"]
    leg = {"us-west": 5.0, "eu-west": 140.0, "ap-south": 70.0}
    [ask] = plan(on, [call(100, A, recorded=Recorded(record, leg))], A).ask
    assert [e.region for e in ask.edges] == ["us-west", "ap-south", "eu-west"]
    near = {"us-west": Measured(rtt_ms=5)}
    [ask] = plan(on, [call(100, A, recorded=Recorded(record), measured=near)], A).ask
    assert [e.region for e in ask.edges] == ["us-west", "eu-west", "ap-south"], (
        "what was measured last counts"
    )


def test_cases_in_their_order() -> None:
    calls = [
        call(100, A, asked=True),
        call(101, A, failures=FAILURES_MAX),
        call(102, A, wishes=Wishes(allow=frozenset({"us-east"}))),
        call(103, A, wishes=Wishes(pin="us-east")),
        call(104, A, wishes=Wishes(rtt_ms_max=1.0)),
        call(105, A),
    ]
    made = plan(fleet(A, B, draining="us-east"), calls, A, pace=Pace(round_max=2))
    assert made.waiting == (uuid(100),)
    assert [(s.call_id, s.why) for s in made.stuck] == [(uuid(101), "not_taken"), (uuid(102), "residency")]
    assert [a.call.call_id for a in made.ask] == [uuid(103), uuid(104)]
    assert made.later == (uuid(105),)
    late = plan(fleet(A, B, draining="us-east"), calls, A, pace=Pace(round_max=2), late=True)
    assert [a.call.call_id for a in late.force] == [uuid(103), uuid(104), uuid(105)] and not late.ask


def test_what_is_under_way_counts() -> None:
    calls = [call(100 + i, A) for i in range(8)]
    pace = Pace(round_max=5, under_way_max=6)
    assert len(plan(fleet(A, B), calls, A, pace=pace).ask) == 5
    assert len(plan(fleet(A, B), calls, A, pace=pace, under_way=4).ask) == 2
    assert not plan(fleet(A, B), calls, A, pace=pace, under_way=9).ask
    assert len(plan(fleet(A, B), calls, A, reserved={B.id: 7}).ask) == 3


def test_an_edge_is_hurried_by_no_more_than_it_can_take_at_once() -> None:
    calls = [call(100 + i, A) for i in range(8)]
    pace = Pace(hurried_max=5)
    made = plan(fleet(A, B), calls, A, pace=pace, late=True, hurried={B.id: 3}, reserved={B.id: 3})
    assert (len(made.force), len(made.later), made.stuck) == (2, 6, ()), "those wait, and none is stuck"
    assert len(plan(fleet(A, B), calls, A, pace=pace, hurried={B.id: 5}).ask) == 8, "who may wait is no herd"


def test_places_for_calls_that_must_leave_are_kept_from_new_ones_and_not_from_them() -> None:
    keeping = replace(B, calls=4, coming=6)
    new = choose(fleet(A, keeping), {}, Wishes(allow=frozenset({"us-west"})), draw=0.5)
    assert isinstance(new, NoPlacement) and new.why == "full"
    assert len(plan(fleet(A, keeping), [call(100 + i, A) for i in range(8)], A).ask) == 6


@given(st.integers(0, 200), st.dictionaries(st.integers(1, 9).map(uuid), st.integers(0, 40)))
def test_what_is_kept_is_as_much_as_will_come_and_nowhere_more_than_there_is(
    left: int, free: dict[UUID, int]
) -> None:
    shares = kept(left, free)
    assert sum(shares.values()) == min(left, sum(free.values()))
    more = kept(left, free, 1_000)
    assert sum(more.values()) == (min(left + 10, sum(free.values())) if left else 0), "and some beside"
    assert all(0 <= places <= free[e] for e, places in more.items())
    assert all(0 <= places <= free[e] for e, places in shares.items())


EDGES = st.lists(
    st.tuples(
        st.sampled_from(REGIONS),
        st.integers(1, 6),
        st.integers(0, 6),
        st.sampled_from(("healthy", "suspect", "down")),
        st.sampled_from(("active", "cordoned", "draining")),
    ),
    min_size=1,
    max_size=8,
)
CALLS = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(0, 4),
        st.frozensets(st.sampled_from(REGIONS), max_size=2),
        st.frozensets(st.sampled_from(("us", "eu", "ap")), max_size=2),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(EDGES, CALLS, st.integers(0, 5), st.booleans(), st.integers(0, 2**62), st.data())
def test_no_edge_is_filled_beyond_its_room_and_every_call_is_accounted_for(
    given_edges: list[tuple[str, int, int, str, str]],
    given_calls: list[tuple[bool, int, frozenset[str], frozenset[str]]],
    under_way: int,
    late: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    edges = [
        edge(i, region, capacity=capacity, calls=min(calls, capacity), health=health, admin_state=state)
        for i, (region, capacity, calls, health, state) in enumerate(given_edges, start=1)
    ]
    leaving = data.draw(st.lists(st.sampled_from(edges), min_size=1, unique=True))
    calls = [
        call(
            100 + i,
            data.draw(st.sampled_from(leaving)),
            asked=asked,
            failures=failures,
            wishes=Wishes(allow=allow, jurisdictions=jurisdictions),
        )
        for i, (asked, failures, allow, jurisdictions) in enumerate(given_calls)
    ]
    reserved = {e.id: data.draw(st.integers(0, 3)) for e in edges}
    hurried = {e.id: data.draw(st.integers(0, reserved[e.id])) for e in edges}
    pace = Pace(round_max=7, forced_round_max=12, under_way_max=10, hurried_max=3)
    on = fleet(*edges)
    more = {
        "reserved": reserved,
        "hurried": hurried,
        "under_way": under_way,
        "late": late,
        "pace": pace,
        "seed": seed,
    }
    made = plan(on, calls, *leaving, **more)
    asks = [*made.ask, *made.force]
    said = Counter(
        [*(a.call.call_id for a in asks), *made.waiting, *made.later, *(s.call_id for s in made.stuck)]
    )
    assert said == Counter(c.call_id for c in calls)
    left = {e.id for e in leaving}
    for target, count in Counter(a.edges[0].id for a in asks).items():
        found = next(e for e in edges if e.id == target)
        assert found.calls + reserved[target] + count <= found.capacity_calls, "I9"
        assert not late or hurried[target] + count <= pace.hurried_max, "no herd"
    for ask in asks:
        wishes = ask.call.wishes
        for found in ask.edges:
            assert found.id not in left and found.admin_state == "active" and found.health != "down"
            assert not wishes.allow or found.region in wishes.allow
            assert not wishes.jurisdictions or found.region[:2] in wishes.jurisdictions
    assert bool(made.force) <= late and bool(made.ask) <= (not late)
    if not late:
        assert len(asks) <= max(0, min(7, 10 - under_way - len(made.waiting)))
    assert plan(on, calls, *leaving, **more) == made, "every instance alike"


@given(
    st.sampled_from(("cordon", "drain", "evacuate", "uncordon")),
    st.sampled_from((None, "drain", "evacuate")),
    st.sampled_from(("active", "cordoned", "draining")),
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=3),
)
def test_a_command_is_refused_with_what_to_do_instead_or_leaves_somebody_who_takes_calls(
    verb: str, running: str | None, state: str, others: list[tuple[bool, bool]]
) -> None:
    mine = replace(A, admin_state="active", calls=1)
    edges = [mine] + [
        edge(10 + i, f"r{i}", health="healthy" if healthy else "down", calls=0 if free else 10)
        for i, (healthy, free) in enumerate(others)
    ]
    on = fleet(*edges)
    on.regions["us-east"] = replace(on.regions["us-east"], admin_state=state)
    refused = refusal(verb, Target(on, "us-east", None), running)
    if refused is not None:
        assert refused.status == 409 and refused.mend and refused.stable_code != "conflict"
        assert verb != "uncordon"
    elif verb in ("drain", "evacuate"):
        assert any(healthy and free for healthy, free in others)
        assert (verb, running) != ("drain", "evacuate")
    elif verb == "cordon":
        assert state != "draining"


def test_the_loss_of_one_of_three_regions_leaves_every_live_call_a_place_and_no_herd() -> None:
    done = Evacuation(1, edges_each=3).run()
    assert done.rounds > 0 and 0 < done.let_in < done.came, "new calls come behind"
