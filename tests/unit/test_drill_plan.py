"""What a drill decides, over thousands of made-up histories: it never cuts more than it may, and it knows when to stop."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.drill_plan import (
    ASKS_MAX,
    LOG_MS,
    Actions,
    Bounds,
    Candidate,
    Fate,
    Followed,
    Halt,
    Standing,
    decide,
    destinations,
    total_of,
    wave_size,
)
from app.fleet.drill_policy import refusal, unfit
from app.fleet.drill_report import LOST_AFTER_S, Moment, Seen, result_of
from app.fleet.policy import Target
from app.fleet.view import EdgeState, Fleet, RegionState

BOUNDS = Bounds(max_rto_ms=1_000, max_lost_events=0, max_failed_calls=0)
WELL = Fate(outcome="recovered", rto_ms=100.0)


def call(number: int, wave: int = 1, **more: object) -> Followed:
    return Followed(call_id=UUID(int=number), wave=wave, **more)  # type: ignore[arg-type]


def ask(drill: Standing, calls: list[Followed], unfit: str = "", available: int = 99) -> Actions:
    return decide(drill, calls, BOUNDS, unfit=unfit, available=available)


def test_cases_in_their_order() -> None:
    new = Standing(total=20)
    assert ask(new, []) == Actions(wave=1)
    assert ask(new, [], available=0) == Actions(finish=Halt("stopped", "no_calls"))
    first = replace(new, wave=1)
    assert ask(first, [call(1)]) == Actions(ask=(UUID(int=1),))
    assert ask(first, [call(1, asks=1, asked_s=2.0)]) == Actions()
    assert ask(first, [call(1, asks=1, asked_s=4.0)]) == Actions(ask=(UUID(int=1),))
    assert ask(first, [call(1, asks=ASKS_MAX, asked_s=4.0)]) == Actions(give_up=(UUID(int=1),), wave=2), (
        "as if it had not been chosen"
    )
    assert ask(first, [call(1, asks=1, cut_ms=500.0)]) == Actions()
    assert ask(first, [call(1, fate=WELL)]) == Actions(wave=2)
    assert ask(first, [call(1, fate=WELL)], "fleet_unhealthy") == Actions(
        halt=Halt("stopped", "fleet_unhealthy")
    )
    assert ask(replace(first, late=True), [call(1, fate=WELL)]) == Actions(halt=Halt("stopped", "time_limit"))
    assert ask(first, [call(1, fate=WELL)], available=0) == Actions(finish=Halt("passed", ""))
    assert ask(first, [call(1, fate=WELL)], "drain_running", 0) == Actions(
        halt=Halt("stopped", "drain_running")
    ), "the drain has taken the others away: this is no rehearsal of theirs"
    whole = replace(first, total=1)
    assert ask(whole, [call(1, fate=WELL)], "drain_running") == Actions(finish=Halt("passed", ""))
    halted = replace(first, halted=Halt("cancelled", "operator"))
    assert ask(halted, [call(1, asks=1, cut_ms=5.0)]) == Actions(), "what was cut is followed"
    assert ask(halted, [call(1)]) == Actions(give_up=(UUID(int=1),), finish=Halt("cancelled", "operator"))


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (Fate(outcome="lost"), "max_failed_calls"),
        (Fate(outcome="recovered", rto_ms=1_001.0), "max_rto_ms"),
        (Fate(outcome="recovered", rto_ms=10.0, lost_events=1), "max_lost_events"),
    ],
    ids=["lost", "late", "events"],
)
def test_a_bound_that_is_broken_halts_and_fails_where_nothing_is_left(fate: Fate, reason: str) -> None:
    drill = Standing(total=20, wave=1)
    assert ask(drill, [call(1, fate=fate)]) == Actions(halt=Halt("stopped", reason))
    assert ask(replace(drill, total=1), [call(1, fate=fate)]) == Actions(halt=Halt("failed", reason))


def test_a_call_that_is_not_back_in_time_halts_before_it_is_settled() -> None:
    drill = Standing(total=20, wave=2)
    waiting = [call(1, fate=WELL), call(2, 2, asks=1, cut_ms=1_000.0 + LOG_MS)]
    assert ask(drill, waiting).halt is None, "the log may not have it yet"
    late = [call(1, fate=WELL), call(2, 2, asks=1, cut_ms=1_001.0 + LOG_MS)]
    assert ask(drill, late).halt == Halt("stopped", "max_rto_ms")


def test_who_has_just_started_waits_until_it_has_heard_the_edges_and_no_longer_than_the_drill_may_take() -> (
    None
):
    def just(drill: Standing, calls: list[Followed], sure_ms: float = 0.0, available: int = 0) -> Actions:
        return decide(drill, calls, BOUNDS, unfit="", available=available, sure_ms=sure_ms)

    first = Standing(total=20, wave=1)
    assert just(Standing(total=20), []) == Actions(), "an edge that is not heard yet takes no call"
    assert just(first, [call(1, fate=WELL)]) == Actions()
    assert just(first, [call(1, fate=WELL)], sure_ms=1.0, available=9) == Actions(wave=2)
    assert just(replace(first, late=True), [call(1, fate=WELL)]).halt == Halt("stopped", "time_limit")
    assert just(replace(first, total=1), [call(1, fate=WELL)]) == Actions(finish=Halt("passed", ""))
    lost = [call(1, fate=Fate(outcome="lost"))]
    assert just(first, lost).halt == Halt("stopped", "max_failed_calls"), "what is known counts"
    away = [call(1, asks=1, cut_ms=60_000.0)]
    assert just(first, away, sure_ms=1_000.0 + LOG_MS).halt is None, "nobody was there to be told"
    assert just(first, away, sure_ms=1_001.0 + LOG_MS, available=9).halt == Halt("stopped", "max_rto_ms")


FATES = (
    Fate(outcome="ended"),
    Fate(outcome="untouched"),
    Fate(outcome="lost"),
    Fate(outcome="recovered", rto_ms=5_000.0),
    Fate(outcome="recovered", rto_ms=1.0, lost_events=2),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 2**32))
def test_a_drill_ends_cuts_no_more_than_it_may_and_waits_for_each_wave(
    total: int, there: int, seed: int
) -> None:
    chance = random.Random(seed)
    drill, calls, ended = Standing(total=total), [], None
    for _ in range(600):
        around = "fleet_unhealthy" if chance.random() < 0.02 else ""
        before = [c for c in calls if c.fate is None]
        made = ask(drill, calls, around, there)
        given_up = set(made.give_up)
        calls = [replace(c, fate=Fate(outcome="untouched")) if c.call_id in given_up else c for c in calls]
        asked = set(made.ask)
        calls = [replace(c, asks=c.asks + 1, asked_s=0.0) if c.call_id in asked else c for c in calls]
        if made.finish is not None:
            ended = made.finish
            break
        if made.halt is not None:
            assert drill.halted is None and not made.wave
            drill = replace(drill, halted=made.halt)
        if made.wave:
            assert drill.halted is None and len(before) == len(given_up), "the wave before has stood"
            assert not around and made.wave <= there
            drill = replace(drill, wave=drill.wave + 1)
            calls += [call(len(calls) + i, drill.wave) for i in range(1, made.wave + 1)]
            there -= made.wave
            if drill.wave == 1:
                assert made.wave == 1
        cut = [c for c in calls if c.fate is None or c.fate.outcome != "untouched"]
        assert len(cut) <= total
        after: list[Followed] = []
        for c in calls:
            step = chance.randrange(4) if c.fate is None else 0
            if step == 1 and c.asks and c.cut_ms is None:
                c = replace(c, cut_ms=10.0)
            elif step == 2 and c.cut_ms is not None:
                c = replace(c, fate=WELL if chance.random() < 0.9 else chance.choice(FATES))
            elif step == 3:
                c = replace(c, asked_s=c.asked_s + 4.0)
            after.append(c)
        calls = after
    assert ended is not None, "it ends"
    fates = [c.fate for c in calls if c.fate is not None]
    assert len(fates) == len(calls), "nobody is left unfollowed"
    broken = any(f.outcome == "lost" or (f.rto_ms or 0) > 1_000 or f.lost_events for f in fates)
    assert ended.verdict != "passed" or not broken
    assert ended.verdict != "failed" or broken


def test_waves_are_one_a_tenth_and_the_rest() -> None:
    assert [wave_size(200, w, c) for w, c in ((1, 0), (2, 1), (3, 21), (4, 200))] == [1, 20, 179, 0]
    assert [wave_size(2, w, c) for w, c in ((1, 0), (2, 1), (3, 2))] == [1, 1, 0]
    assert (
        total_of(101, 0.1, 50, 100) == 11
        and total_of(100, 1, 50, 100) == 50
        and total_of(100, 1, 500, 7) == 7
    )


# ---------------------------------------------------------------------------------------------- where they go


def edge(number: int, region: str, capacity: int = 10, **more: object) -> EdgeState:
    given_ = {"health": "healthy", "calls": 0} | more
    return EdgeState(
        id=UUID(int=number), region=region, name=f"e{number}", incarnation=UUID(int=number), media_url="ws://m",
        http_url="http://h", capacity_calls=capacity, **given_,  # type: ignore[arg-type]
    )  # fmt: skip


A, A2, B, C = edge(1, "us-east"), edge(2, "us-east"), edge(3, "us-west"), edge(4, "eu-west")


def fleet(*edges: EdgeState, **states: str) -> Fleet:
    regions = {
        r: RegionState(id=r, jurisdiction=r[:2], admin_state=states.get(r[:2], "active"), health="healthy")
        for r in sorted({e.region for e in edges})
    }
    return Fleet(regions=regions, edges=edges)


def candidate(number: int, *standbys: EdgeState) -> Candidate:
    return Candidate(
        call_id=UUID(int=number), epoch=1, edge_id=A.id, region="us-east",
        standbys=tuple((e.id, e.incarnation) for e in standbys),
    )  # fmt: skip


def test_only_calls_with_a_place_elsewhere_are_touched() -> None:
    known = {e.id: e for e in (A, A2, replace(B, capacity_calls=1), C)}
    region, alone = frozenset({A.id, A2.id}), frozenset({A.id})
    calls = [candidate(1, B, C), candidate(2, B, C), candidate(3, B), candidate(4), candidate(5, A2, C)]
    assert destinations(calls, known, lost=region) == {UUID(int=1): B.id, UUID(int=2): C.id}
    assert destinations([candidate(5, A2, B)], known, lost=alone) == {UUID(int=5): A2.id}
    restarted = {**known, C.id: replace(C, incarnation=UUID(int=9))}
    assert destinations([candidate(1, C)], restarted, lost=region) == {}, "it refuses the grants of before"
    down = {**known, C.id: replace(C, health="down")}
    assert destinations([candidate(1, C)], down, lost=region) == {}


def code(on: Fleet, **more: object) -> str:
    given_: dict[str, object] = {
        "gone": frozenset(), "drill_running": "", "drain_running": False, "calls": 5, "protected": 5,
    } | more  # fmt: skip
    refused = refusal(Target(on, "us-east", None), **given_)  # type: ignore[arg-type]
    if refused is None:
        return ""
    assert refused.status == 409 and refused.mend and refused.detail
    return refused.stable_code


def test_what_is_refused_in_its_order() -> None:
    well = fleet(A, B, C)
    assert code(well) == ""
    assert code(well, drill_running="drill_1") == "drill_running"
    assert code(fleet(A, B, us="draining")) == "is_draining"
    assert code(fleet(replace(A, health="down"), B)) == "target_down"
    assert code(well, drain_running=True) == "drain_running"
    assert code(fleet(A, B, replace(C, health="suspect"))) == "fleet_unhealthy"
    assert code(fleet(A, B, replace(C, health="down")), gone=frozenset({C.id})) == "", (
        "it is no part of the fleet"
    )
    stopped = fleet(A, B, replace(C, health="down", stopped=True))
    assert code(stopped) == "", "it was told to stop, and is no part of the fleet"
    assert unfit(Target(stopped, "us-east", None), gone=frozenset(), drain_running=False) == ""
    assert code(fleet(A)) == "nowhere_to_go"
    assert code(well, calls=0) == "no_calls"
    assert code(well, protected=0) == "no_standbys"


def test_a_fleet_that_is_not_well_is_not_fit_for_more() -> None:
    def of(on: Fleet, drain: bool = False) -> str:
        return unfit(Target(on, "us-east", None), gone=frozenset(), drain_running=drain)

    assert of(fleet(A, B)) == ""
    assert of(fleet(A, B), drain=True) == "drain_running"
    unheard = fleet(replace(A, health="suspect"), replace(B, health="down"))
    assert unfit(Target(unheard, "us-east", None), gone=frozenset(), drain_running=False, sure=False) == ""
    assert (
        unfit(Target(unheard, "us-east", None), gone=frozenset(), drain_running=True, sure=False)
        == "drain_running"
    )
    assert of(fleet(replace(A, health="down"), B)) == "target_down"
    assert of(fleet(A, B, replace(C, health="down"))) == "fleet_unhealthy"
    assert of(fleet(A)) == "nowhere_to_go"


# ------------------------------------------------------------------------------------------------- the report

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def seen(**more: object) -> Seen:
    given_: dict[str, object] = {
        "cut_at": T0, "told_at": T0 + timedelta(milliseconds=5), "since_s": 1.0, "acked": 7, "present": 7, "unacked": 3,
        "kept": 2, "to_epoch": 2, "to_edge": B.id, "to_region": "us-west", "served": None,
        "since_served_s": None, "back": None, "ended": False, "end_reason": None,
    } | more  # fmt: skip
    return Seen(**given_)  # type: ignore[arg-type]


def back(edge_ms: float, database_ms: float) -> Moment:
    return Moment(at=T0 + timedelta(milliseconds=edge_ms), stored_at=T0 + timedelta(milliseconds=database_ms))


def test_what_became_of_a_call() -> None:
    assert result_of(seen()) is None
    assert result_of(seen(served=back(140, 170), since_served_s=0.5)) is None, "watched for audio"
    quiet = result_of(seen(served=back(140, 170), since_served_s=1.5))
    assert quiet is not None and (quiet.outcome, quiet.rto_ms, quiet.audio_ms) == ("recovered", 140.0, None)
    found = result_of(seen(served=back(140, 170), since_served_s=0.1, back=back(900, 950)))
    assert found is not None and found.audio_ms == 900.0
    assert found is not None and (found.outcome, found.rto_ms, found.clock) == ("recovered", 140.0, "edges")
    assert (found.lost_events, found.adopted_events, found.dropped_events) == (0, 2, 1)
    assert result_of(seen(present=5, served=back(1, 1), back=back(1, 1))).lost_events == 2  # type: ignore[union-attr]
    for reason, outcome in (("caller_hung_up", "ended"), ("edge_lost", "lost"), ("agent_lost", "lost")):
        ended = result_of(seen(ended=True, end_reason=reason))
        assert ended is not None and ended.outcome == outcome
    lost = result_of(seen(since_s=LOST_AFTER_S + 1))
    assert lost is not None and (lost.outcome, lost.rto_ms) == ("lost", None)


@given(st.integers(-7_200_000, 7_200_000), st.integers(5, 10_000))
def test_an_edge_whose_clock_is_wrong_does_not_decide_what_rto_is(off_ms: int, took_ms: int) -> None:
    found = result_of(seen(served=back(took_ms + off_ms, took_ms), since_served_s=2.0))
    assert found is not None and found.rto_ms is not None
    assert abs(found.rto_ms - took_ms) <= 1_005
