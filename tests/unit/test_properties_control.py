"""What must hold of the control plane's pure parts, for inputs nobody thought of."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import ids as app_ids
from app.calls.machine import AFTER, FINAL, CallState, final_state, state_after
from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.choice import Measured, NoPlacement, Placement, Wishes, choose
from app.webhooks.retry import PARK_AFTER_S, SCHEDULE_S, Attempt, judge
from regions.wire import ids
from regions.wire.events import EVENT_TYPES, FINAL_TYPE, EndReason

T = TypeVar("T")
quick = settings(max_examples=100, deadline=None)

# ---------------------------------------------------------------------------------------------------------- the ids

PREFIXES = st.sampled_from((ids.CALL, ids.EVENT, ids.EDGE, ids.KEY, ids.PROJECT, ids.WEBHOOK))
MOMENTS = st.integers(0, 2**48 - 1)


@quick
@given(PREFIXES, MOMENTS, st.integers(0, 2**64 - 1), st.integers(0, ids.CELL_MAX))
def test_an_id_comes_back_whole_with_its_cell_and_its_time(
    prefix: str, now_ms: int, random: int, cell: int
) -> None:
    value = ids.uuid7(now_ms, random, cell)
    assert (value.version, ids.cell_of(value), ids.created_ms(value)) == (7, cell, now_ms)
    text = ids.encode(prefix, value)
    assert ids.decode(prefix, text) == value
    assert app_ids.parse(prefix, text) == value
    assert app_ids.parse("other", text) is None


@quick
@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_ids_sort_as_what_they_stand_for(a: int, b: int) -> None:
    one, other = ids.encode("call", UUID(int=a)), ids.encode("call", UUID(int=b))
    assert (one < other, one == other) == (a < b, a == b)


@quick
@given(st.text(max_size=40) | st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26))
def test_an_id_has_one_spelling_and_everything_else_is_none(text: str) -> None:
    for candidate in (text, "call_" + text):
        value = app_ids.parse("call", candidate)
        assert value is None or ids.encode("call", value) == candidate


# ------------------------------------------------------------------------------------------------------- the choice

NAMES = ("a", "b", "c", "d", "e")
JURISDICTIONS = ("us", "eu")


def mostly(usual: T, *others: T) -> st.SearchStrategy[T]:
    return st.sampled_from((usual,) * 3 * len(others) + others)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    regions = {
        name: RegionState(
            id=name, jurisdiction=draw(st.sampled_from(JURISDICTIONS)),
            admin_state=draw(mostly("active", "cordoned", "draining")),
            health=draw(mostly("healthy", "suspect", "down", "probation")),
        )
        for name in names
    }  # fmt: skip
    edges = []
    for name in names:
        for n in range(draw(st.sampled_from((1, 2, 3, 1, 0)))):
            edges.append(
                EdgeState(
                    id=UUID(int=len(edges) + 1), region=name, name=f"{name}{n}", incarnation=UUID(int=n), media_url="ws://x",
                    http_url="http://x", capacity_calls=draw(mostly(10, 0, 1)), calls=draw(st.sampled_from((0, 1, 5, 8, 10))),
                    health=draw(mostly("healthy", "suspect", "down")),
                    admin_state=draw(mostly("active", "cordoned")), draining=draw(mostly(False, True)),
                )
            )  # fmt: skip
    return Fleet(regions=regions, edges=tuple(edges))


WISHES = st.builds(
    Wishes, allow=st.frozensets(st.sampled_from(NAMES), max_size=3),
    jurisdictions=st.frozensets(st.sampled_from(JURISDICTIONS), max_size=1),
    prefer=st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple), pin=st.none() | st.sampled_from(NAMES),
    rtt_ms_max=st.none() | st.floats(1, 400),
)  # fmt: skip
MEASURED = st.dictionaries(
    st.sampled_from((*NAMES, "unknown")),
    st.builds(
        Measured,
        rtt_ms=st.floats(0, 500),
        jitter_ms=st.floats(0, 50),
        loss=st.floats(0, 1),
        age_s=st.floats(0, 900),
    ),
)
REASONS = {
    "chosen", "not_allowed", "not_pinned", "cordoned", "draining", "unhealthy", "full", "too_far", "costlier", "two_choices",
}  # fmt: skip


@quick
@given(fleets(), MEASURED, WISHES, st.floats(0, 1, exclude_max=True))
def test_no_filtered_region_is_chosen_and_every_region_is_on_record_with_its_reason(
    fleet: Fleet, measured: dict[str, Measured], wishes: Wishes, draw: float
) -> None:
    placed = choose(fleet, measured, wishes, draw=draw)
    record = {c.region: c for c in placed.candidates}
    assert sorted(record) == sorted(fleet.regions) and len(placed.candidates) == len(record)
    assert {c.reason for c in placed.candidates} <= REASONS
    for name, candidate in record.items():
        state = fleet.regions[name]
        allowed = (not wishes.allow or name in wishes.allow) and (
            not wishes.jurisdictions or state.jurisdiction in wishes.jurisdictions
        )
        assert (candidate.reason == "not_allowed") == (not allowed)
    assert choose(fleet, measured, wishes, draw=draw) == placed
    if isinstance(placed, NoPlacement):
        assert not any(c.reason in ("chosen", "costlier", "two_choices") for c in placed.candidates)
        assert placed.why == "residency" or placed.allowed
        return
    assert [c.region for c in placed.candidates if c.reason == "chosen"] == [placed.region]
    primary, *standbys = placed.edges
    assert primary.region == placed.region
    assert wishes.pin in (None, placed.region)
    chosen = record[placed.region]
    assert wishes.rtt_ms_max is None or chosen.rtt_ms <= wishes.rtt_ms_max + 0.05
    _check_edges(fleet, placed, wishes)
    abroad = [e for e in standbys if e.region != placed.region]
    assert len({e.region for e in abroad}) == len(abroad) and len(standbys) <= 2
    assert (placed.protection == "full") == (len(abroad) == 2)
    assert (placed.protection == "none") == (not standbys)
    assert bool(placed.protection_reason) == (placed.protection != "full")


def _check_edges(fleet: Fleet, placed: Placement, wishes: Wishes) -> None:
    assert len({e.id for e in placed.edges}) == len(placed.edges)
    for edge in placed.edges:
        state = fleet.regions[edge.region]
        assert not wishes.allow or edge.region in wishes.allow
        assert not wishes.jurisdictions or state.jurisdiction in wishes.jurisdictions
        assert (state.admin_state, edge.admin_state, edge.draining) == ("active", "active", False)
        assert edge.health == "healthy" or (placed.panic and edge.health == "suspect")
        assert edge.calls < edge.capacity_calls


# -------------------------------------------------------------------------------------------------------- the retry


@quick
@given(
    st.integers(1, len(SCHEDULE_S) + 3),
    st.sampled_from((None, 200, 204, 299, 301, 410, 429, 500)) | st.integers(100, 599), st.booleans(),
    st.none() | st.floats(0, 1e9), st.floats(0, 1e6), st.floats(0, 1),
)  # fmt: skip
def test_a_delivery_ends_or_waits_within_bounds(
    number: int,
    status: int | None,
    timed_out: bool,
    retry_after_s: float | None,
    failing_s: float,
    draw: float,
) -> None:
    attempt = Attempt(
        number=number, status=status, timed_out=timed_out, retry_after_s=retry_after_s, failing_s=failing_s
    )
    verdict = judge(attempt, draw=draw)
    assert (verdict.outcome == "delivered") == (status is not None and 200 <= status < 300)
    assert (verdict.outcome == "gone") == (status == 410)
    if verdict.outcome != "retry":
        assert (verdict.pause_s, verdict.park) == (0.0, False)
        assert verdict.outcome != "failed" or number >= len(SCHEDULE_S)
        return
    assert number < len(SCHEDULE_S)
    assert 0.8 * SCHEDULE_S[number] - 1e-6 <= verdict.pause_s <= 1.2 * 86_400
    assert verdict.park == (failing_s + verdict.pause_s >= PARK_AFTER_S)


@quick
@given(st.lists(st.sampled_from((None, 301, 404, 429, 500, 503)), min_size=len(SCHEDULE_S)), st.floats(0, 1))
def test_what_only_fails_fails_for_good_after_the_schedule(statuses: list[int | None], draw: float) -> None:
    outcomes = [
        judge(Attempt(number=n, status=s), draw=draw).outcome
        for n, s in enumerate(statuses, 1)
        if n <= len(SCHEDULE_S)
    ]
    assert outcomes == ["retry"] * (len(SCHEDULE_S) - 1) + ["failed"]


# ------------------------------------------------------------------------------------------------------ the machine

HAPPENED = st.lists(
    st.tuples(
        st.sampled_from(sorted(EVENT_TYPES)), st.sampled_from((None, "nonsense", *EndReason)), st.booleans()
    ),
    max_size=15,
)


@quick
@given(st.sampled_from(CallState), HAPPENED)
def test_a_call_stays_within_the_table_and_a_final_state_stays(
    state: CallState, happened: list[tuple[str, str | None, bool]]
) -> None:
    for type_, reason, answered in happened:
        following = state_after(state, type_, end_reason=reason, answered=answered)
        if state in FINAL:
            assert following is state
        elif type_ == FINAL_TYPE:
            assert following in FINAL
        else:
            assert following is AFTER.get(type_, state)
        state = following
    assert (state in FINAL) or not any(t == FINAL_TYPE for t, _, _ in happened)


@pytest.mark.parametrize("answered", [True, False])
def test_every_reason_ends_in_a_final_state(answered: bool) -> None:
    assert {final_state(r, answered=answered) for r in (None, "nonsense", *EndReason)} <= FINAL
    assert set(AFTER) <= set(EVENT_TYPES) and not set(AFTER.values()) & FINAL
