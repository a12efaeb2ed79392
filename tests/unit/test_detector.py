"""The detector's numbered cases, and what must hold of it for every history."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet import explain
from app.fleet.arrivals import SUSPECT_MAX_S, SUSPECT_MIN_S, Arrivals, phi
from app.fleet.detector import GONE_S, Detector, EdgeRow, Kept, region_transitions
from app.fleet.verdicts import (
    DOWN_AFTER_S,
    GOOD,
    PROBATION_MAX_S,
    PROBATION_S,
    Assessment,
    Signals,
    State,
    assess,
    earliest_s,
    probation_s,
    region_verdict,
    step,
    weight,
)
from app.fleet.votes import (
    Ballot,
    Callers,
    Left,
    Report,
    Seen,
    Vote,
    abstentions,
    by_target,
    callers_of,
    vote_on,
)
from tests.support.fleet_day import Day, detection_s, false_downs

AT = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C, D = (UUID(int=n) for n in range(1, 5))
DOWN = Assessment(level="down", action="quarantine", case="silent")
EVACUATE = Assessment(level="down", action="evacuate", case="refused")
LATE = Assessment(level="suspect", action="quarantine", case="late")
quick = settings(max_examples=100, deadline=None)


def look(edge: UUID, outcome: str, **more: Any) -> Seen:
    values = {"listener": "http", "rtt_ms": 9.0, "age_s": 0.2, "streak": 3, "reached": True} | more
    return Seen(edge=edge, outcome=outcome, **values)


def report(observer: UUID, region: str, *seen: Seen, left: tuple[Left, ...] = (), **more: Any) -> Report:
    return Report(
        observer=observer, region=region, **({"age_s": 0.3, "lag_ms": 5.0} | more), seen=seen, left=left
    )


def vote(edge: UUID, *reports: Report, unwell: tuple[UUID, ...] = ()) -> Vote:
    return vote_on(by_target(reports).get(edge, ()), abstentions(reports, unwell))


def ballots(*outcomes: str) -> Vote:
    reports = [report(UUID(int=100 + i), f"v{i}", look(A, o)) for i, o in enumerate(outcomes)]
    return vote(A, *reports)


# ------------------------------------------------------------------------------------------------------- arrivals


def test_even_heartbeats_make_silence_suspicious_early_and_uneven_ones_late() -> None:
    even, uneven = (Arrivals.first(AT, 0.0, 0.0) for _ in range(2))
    now_s = 0.0
    for i in range(60):
        now_s += 1.0
        even.look(AT + timedelta(seconds=now_s), 0.0, now_s)
        late_s = now_s + (0.9 if i % 2 else 0.0)
        uneven.look(AT + timedelta(seconds=now_s), 0.0, late_s)
    even.heard_s = uneven.heard_s = now_s
    assert even.late(now_s + SUSPECT_MIN_S + 0.1)
    assert not uneven.late(now_s + SUSPECT_MIN_S + 0.1)
    assert uneven.late(now_s + SUSPECT_MAX_S)
    assert not even.late(now_s + SUSPECT_MIN_S - 0.1)


@quick
@given(st.floats(0, 1e6), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0, 100))
def test_phi_is_a_number_and_grows_with_the_silence(
    silent_s: float, mean_s: float, sd_s: float, more_s: float
) -> None:
    one, other = phi(silent_s, mean_s, sd_s), phi(silent_s + more_s, mean_s, sd_s)
    assert 0 <= one <= other <= 99


def test_a_clock_that_jumps_by_an_hour_is_no_silence_and_no_heartbeat() -> None:
    arrivals = Arrivals.first(AT, 0.0, 0.0)
    arrivals.look(AT + timedelta(seconds=1), 0.0, 1.0)
    arrivals.look(AT + timedelta(seconds=1), 3_600.0, 2.0)
    assert arrivals.silent_s(2.0) == 1.0
    arrivals.look(AT + timedelta(hours=1), 0.0, 3.0)
    assert arrivals.silent_s(3.0) == 0.0
    arrivals.look(AT + timedelta(hours=1), -3_600.0, 9.0)
    assert arrivals.silent_s(9.0) == 6.0


def test_an_edge_that_was_silent_before_anybody_watched_is_not_proven() -> None:
    arrivals = Arrivals.first(AT, 3_600.0, 10.0)
    assert arrivals.silent_s(10.0) == 3_600.0
    assert not arrivals.proven


# ----------------------------------------------------------------------------------------------------------- votes


@pytest.mark.parametrize(
    ("outcomes", "expected", "positive"),
    [
        ((), "none", False),
        (("refused",), "refused", False),
        (("ok",), "up", False),
        (("refused", "ok"), "split", False),
        (("refused", "refused"), "refused", True),
        (("timeout", "timeout", "ok"), "away", False),
        (("timeout", "ok", "ok"), "up", False),
        (("refused", "timeout", "ok"), "away", False),
        (("refused", "error", "ok"), "failing", True),
        (("refused", "refused", "ok"), "refused", True),
        (("refused", "refused", "ok", "ok"), "split", False),
    ],
)
def test_more_than_half_of_the_vantages_carry_the_vote(
    outcomes: tuple[str, ...], expected: str, positive: bool
) -> None:
    found = ballots(*outcomes)
    assert (found.outcome, found.positive) == (expected, positive)
    assert found.basis


def test_an_observer_abstains_where_it_may_see_itself() -> None:
    good = [report(B, "b", look(A, "ok")), report(C, "c", look(A, "ok"))]
    bad = look(A, "refused")
    for odd in (
        report(D, "d", bad, age_s=5.0),
        report(D, "d", bad, lag_ms=900.0),
        report(D, "d", look(A, "timeout"), look(B, "timeout")),
        report(D, "d", look(A, "refused", reached=False)),
        report(D, "d", look(A, "refused", age_s=9.0)),
    ):
        assert {b.region for b in vote(A, *good, odd).ballots} == {"b", "c"}
    assert {b.region for b in vote(A, *good, report(D, "d", bad), unwell=(D,)).ballots} == {"b", "c"}
    assert vote(A, *good, report(D, "d", bad)).ballots[2].outcome == "refused"


def test_one_look_that_failed_is_nothing_yet_and_nobody_votes_on_itself() -> None:
    assert vote(A, report(B, "b", look(A, "timeout", streak=1))).outcome == "up"
    assert vote(A, report(A, "a", look(A, "refused"))).outcome == "none"


def test_newest_looks_that_fail_make_a_late_heartbeat_count_sooner() -> None:
    failed = [report(B, "b", look(A, "timeout", streak=1)), report(C, "c", look(A, "timeout", streak=1))]
    assert (vote(A, *failed).outcome, vote(A, *failed).doubted) == ("up", True)
    assert not vote(A, failed[0], report(C, "c", look(A, "ok"))).doubted
    arrivals = Arrivals.first(AT, 0.0, 0.0)
    assert arrivals.late(1.9, doubted=True)
    assert not arrivals.late(2.1)
    assert not arrivals.late(1.5, doubted=True)


def test_the_media_listener_counts_where_the_other_one_answers() -> None:
    seen = (look(A, "ok"), look(A, "error", listener="media", age_s=3.0))
    assert vote(A, report(B, "b", *seen), report(C, "c", *seen)).outcome == "failing"


def left(n: int, edge: UUID = A, age_s: float = 1.0, first: int = 0) -> tuple[Left, ...]:
    return tuple(
        Left(call=UUID(int=1_000 + first + i), edge=edge, reason="silent", age_s=age_s) for i in range(n)
    )


def test_callers_fail_an_edge_above_a_fifth_of_twenty() -> None:
    few = callers_of(A, 10, [report(B, "b", left=left(5))])
    assert (few.samples, few.failing) == (15, False)
    assert not callers_of(A, 80, [report(B, "b", left=left(20))]).failing
    assert callers_of(A, 79, [report(B, "b", left=left(20))]).failing
    assert not callers_of(A, 0, [report(B, "b", left=left(50, age_s=11))]).failing


def test_a_flood_of_reports_about_one_call_is_one_report() -> None:
    once = left(1) * 5_000
    found = callers_of(A, 30, [report(B, "b", left=once), report(C, "c", left=once)])
    assert (found.left, found.failing) == (1, False)
    many = callers_of(A, 1_000, [report(B, "b", left=left(5_000))])
    assert many.left == 200
    assert not many.failing
    assert callers_of(A, -5, [report(B, "b", left=left(3))]).samples == 3


# -------------------------------------------------------------------------------------------------------- verdicts


def signals(silent_s: float = 0.5, **more: Any) -> Signals:
    return Signals(silent_s=silent_s, late=silent_s > 2.5, **more)


@pytest.mark.parametrize(
    ("found", "level", "action", "case"),
    [
        (signals(vote=ballots("refused", "refused", "ok")), "down", "evacuate", "refused"),
        (signals(5.1), "down", "quarantine", "silent"),
        (signals(4.6, vote=ballots("timeout", "timeout")), "down", "quarantine", "silent"),
        (signals(4.4, vote=ballots("timeout", "timeout")), "suspect", "quarantine", "late"),
        (signals(60.0, vote=ballots("ok", "ok")), "suspect", "quarantine", "late"),
        (signals(3.0, vote=ballots("refused")), "down", "quarantine", "gone"),
        (signals(0.5, vote=ballots("refused")), "good", "none", "good"),
        (signals(callers=Callers(left=20, samples=40, regions=("b", "c"))), "suspect", "evacuate", "failing"),
        (signals(callers=Callers(left=20, samples=40, regions=("b",))), "suspect", "quarantine", "left"),
        (signals(3.0), "suspect", "quarantine", "late"),
        (signals(vote=ballots("timeout", "timeout", "ok")), "suspect", "quarantine", "unreachable"),
        (signals(vote=ballots("timeout", "ok")), "good", "none", "good"),
        (signals(), "good", "none", "good"),
    ],
)
def test_each_case_in_its_order(found: Signals, level: str, action: str, case: str) -> None:
    assert assess(found) == Assessment(level=level, action=action, case=case)


def test_silence_alone_never_evacuates() -> None:
    for outcome in (ballots(), ballots("timeout", "timeout", "timeout"), ballots("refused")):
        assert assess(signals(1e6, vote=outcome)).action == "quarantine"


def walk(state: State, *steps: tuple[Assessment, float]) -> State:
    for found, age_s in steps:
        state = step(state, found, age_s=age_s, good_for_s=age_s, may_eject=True) or state
    return state


def test_probation_doubles_with_each_flap_and_ramps() -> None:
    state, lengths = State(), []
    for _ in range(9):
        state = walk(state, (LATE, 9.0), (DOWN, 1.0), (GOOD, 1.5))
        assert state.verdict == "probation"
        lengths.append(probation_s(state.flaps))
        assert [weight(state, share * lengths[-1]) for share in (0.0, 0.4, 0.6)] == [0.1, 0.1, 0.5]
        state = walk(state, (GOOD, lengths[-1] - 0.1))
        assert state.verdict == "probation"
        state = walk(state, (GOOD, lengths[-1]))
        assert (state.verdict, weight(state, 0.0)) == ("healthy", 1.0)
    assert lengths[:4] == [PROBATION_S, 2 * PROBATION_S, 4 * PROBATION_S, 8 * PROBATION_S]
    assert lengths[-1] == PROBATION_MAX_S
    assert walk(state, (DOWN, 3_600.0)).flaps == 1


def test_a_doubt_during_probation_begins_it_again_and_one_during_health_does_not() -> None:
    state = walk(State(), (DOWN, 9.0), (GOOD, 1.5), (LATE, 4.0), (GOOD, 1.5))
    assert (state.verdict, state.owed) == ("probation", True)
    assert walk(State(), (LATE, 900.0), (GOOD, 1.5)).verdict == "healthy"


def test_a_suspicion_that_comes_back_and_back_is_a_flap() -> None:
    state = State()
    for expected in ("healthy", "healthy", "probation"):
        state = walk(state, (LATE, 5.0), (GOOD, 1.5))
        assert state.verdict == expected
    state = State()
    for _ in range(10):
        state = walk(state, (LATE, 60.0), (GOOD, 1.5))
        assert state.verdict == "healthy"


def test_what_another_observer_has_just_seen_is_not_taken_back_at_once() -> None:
    suspect = walk(State(), (LATE, 99.0))
    assert step(suspect, GOOD, age_s=0.2, good_for_s=500.0, may_eject=True) is None
    assert step(suspect, GOOD, age_s=1.2, good_for_s=0.2, may_eject=True) is None


def test_who_may_not_be_ejected_stays_suspect_and_is_not_evacuated() -> None:
    held = step(State(), EVACUATE, age_s=99.0, good_for_s=0.0, may_eject=False)
    assert held is not None
    assert (held.verdict, held.action, held.case) == ("suspect", "quarantine", "held")
    down = step(held, EVACUATE, age_s=1.0, good_for_s=0.0, may_eject=True)
    assert down is not None
    assert (down.verdict, down.action) == ("down", "evacuate")


ASSESSMENTS = st.sampled_from([GOOD, LATE, DOWN, EVACUATE])


@quick
@given(st.lists(st.tuples(ASSESSMENTS, st.floats(0, 2_000), st.floats(0, 2_000), st.booleans()), max_size=60))
def test_every_history_keeps_its_books(history: list[tuple[Assessment, float, float, bool]]) -> None:
    state = State()
    for found, age_s, good_for_s, may_eject in history:
        after = step(state, found, age_s=age_s, good_for_s=good_for_s, may_eject=may_eject)
        if after is None:
            continue
        assert after.version == state.version + 1
        assert (after.verdict, after.action) != (state.verdict, state.action)
        assert (after.verdict == "down") <= (state.verdict == "down" or (may_eject and found.level == "down"))
        assert (state.verdict, after.verdict) not in {("down", "healthy"), ("down", "suspect")}
        assert (after.action == "none") == (after.verdict in ("healthy", "probation"))
        assert 0 <= weight(after, 0.0) <= 1
        assert probation_s(after.flaps) <= PROBATION_MAX_S
        state = after


def test_a_region_is_as_good_as_its_best_edge() -> None:
    assert region_verdict([]) == "down"
    assert region_verdict(["down", "probation", "suspect"]) == "probation"


# ------------------------------------------------------------------------------------------------------- the fleet


def rows(n: int, at_s: float, silent: set[int] = frozenset()) -> list[EdgeRow]:  # type: ignore[assignment]
    return [
        EdgeRow(
            id=UUID(int=i + 1), region=f"r{i % 3}", db_silent_s=0.0,
            seen_at=AT + timedelta(seconds=0 if i in silent else math.floor(at_s)),
        )
        for i in range(n)
    ]  # fmt: skip


def run(
    detector: Detector,
    n: int,
    until_s: float,
    silent: set[int],
    kept: dict[UUID, Kept],
    every_s: float = 0.25,
) -> None:
    """From second 10 on, some say nothing any more."""
    now_s = 0.0
    while now_s < until_s:
        now_s += every_s
        quiet = silent if now_s > 10 else set()
        at = rows(n, now_s) if not quiet else [
            replace(r, seen_at=AT + timedelta(seconds=10)) if i in quiet else r
            for i, r in enumerate(rows(n, now_s))
        ]  # fmt: skip
        for t in detector.look(now_s, at, kept).transitions:
            kept[t.edge] = Kept(state=t.after, age_s=0.0)


def verdicts(kept: dict[UUID, Kept]) -> list[str]:
    return sorted(k.state.verdict for k in kept.values())


@pytest.mark.parametrize(("n", "most"), [(1, 1), (2, 1), (3, 1), (6, 2), (9, 3)])
def test_never_more_than_a_third_of_the_fleet_is_ejected(n: int, most: int) -> None:
    kept: dict[UUID, Kept] = {}
    run(Detector(), n, 30.0, set(range(n)), kept)
    assert verdicts(kept) == ["down"] * most + ["suspect"] * (n - most)
    assert {k.state.case for k in kept.values() if k.state.verdict == "suspect"} <= {"held", "late"}


def test_an_observer_whose_looks_come_late_changes_nothing_and_forgives_the_gap() -> None:
    detector, kept = Detector(), {}
    run(detector, 3, 9.0, set(), kept)
    found = detector.look(40.0, rows(3, 9.0), kept)
    assert found.abstains
    assert not found.transitions
    assert max(j.signals.silent_s for j in found.judgements.values()) < 2
    assert not detector.look(40.25, rows(3, 9.0), kept).transitions
    assert not detector.look(41.0, rows(3, 9.0), kept).judgements[A].signals.late
    slow = Detector()
    slow.look(0.0, rows(1, 0.0), {})
    assert "read" in slow.look(1.0, rows(1, 0.0), {}, read_s=1.2).abstains


def test_whom_nobody_has_watched_is_kept_from_new_calls_and_not_judged() -> None:
    detector = Detector()
    found = detector.look(0.0, [replace(rows(1, 0.0)[0], db_silent_s=3_600.0)], {})
    judged = found.judgements[UUID(int=1)]
    assert (judged.health, judged.weight, found.transitions) == ("down", 0.0, ())
    assert explain.why(judged)
    assert not found.proven
    assert detector.look(1.0, rows(1, 1.0), {}).proven, "heard"


def test_who_started_late_knows_within_seconds_who_is_silent_and_asks_nobody_who_is_gone() -> None:
    silent = [replace(rows(1, 0.0)[0], db_silent_s=3_600.0)]
    detector = Detector()
    looks = [detector.look(i / 4, silent, {}) for i in range(4 * 6)]
    assert [look.proven for look in (looks[0], looks[-1])] == [False, True]
    gone = {UUID(int=1): Kept(state=State(verdict="down"), age_s=GONE_S + 1)}
    assert Detector().look(0.0, silent, gone).proven


def test_a_region_changes_with_what_is_written_down() -> None:
    detector = Detector()
    found = detector.look(0.0, rows(2, 0.0), {})
    down = {UUID(int=1): Kept(state=State(verdict="down", action="evacuate", case="refused", version=3))}
    moved = region_transitions(found, down, {})
    assert [(m.region, m.after.verdict, m.after.version) for m in moved] == [("r0", "down", 1)]
    assert region_transitions(found, down, {"r0": Kept(state=moved[0].after)}) == []


def test_every_verdict_is_explained() -> None:
    detector = Detector()
    reports = [report(B, "b", look(A, "refused"), left=left(30)), report(C, "c", look(A, "refused"))]
    for verdict in ("healthy", "suspect", "down", "probation"):
        found = detector.look(
            0.0, rows(3, 0.0), {A: Kept(state=State(verdict=verdict, flaps=1), age_s=3.0)}, reports
        )
        judged = found.judgements[A]
        assert explain.would_change(judged)
        assert [s["signal"] for s in explain.signals(judged)] == ["heartbeats", "probes", "callers"]
        assert explain.evidence(judged)["signals"]["probes"]["says"] == "refused"


LOSSY = st.fixed_dictionaries(
    {"loss": st.floats(0, 0.05), "jitter_s": st.floats(0, 0.2), "stall_s": st.sampled_from([0.0, 0.5, 1.5])}
)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1 << 30), LOSSY)
def test_no_edge_that_lives_is_held_down(seed: int, network: dict[str, float]) -> None:
    assert false_downs(seed, 0.25, regions=3, per_region=1, **network) == 0


@pytest.mark.parametrize("how", ["silent", "killed"])
def test_an_edge_that_dies_is_found_in_time_in_spite_of_all_that(how: str) -> None:
    for seed in range(6):
        away_s, down_s = detection_s(seed, how, per_region=1)
        assert away_s <= 3.0
        assert down_s <= 5.5


def test_a_fleet_that_heals_is_whole_again() -> None:
    day = Day(3, per_region=1)
    day.run(30)
    victim = day.members[0]
    victim.dies_at_s = day.now_s
    day.run(day.now_s + 10)
    assert day.verdict(victim.id) == "down"
    victim.dies_at_s = 1e18
    day.run(day.now_s + 60)
    came = [v for _, edge, v, _ in day.history if edge == victim.id]
    assert came.index("down") < came.index("probation")
    assert day.verdict(victim.id) in ("healthy", "probation")


def test_a_ballot_names_its_observers() -> None:
    ballot = vote(A, report(B, "b", look(A, "ok")), report(C, "b", look(A, "timeout"))).ballots[0]
    assert ballot == Ballot(region="b", outcome="ok", streak=3, rtt_ms=9.0, observers=(B, C))
    assert DOWN_AFTER_S == 5.0


def test_an_edge_that_flaps_for_an_hour_gets_less_and_less() -> None:
    """Up for eight seconds, down for six, again and again: after a minute it is never trusted with more than a tenth."""
    state, since_s, good_since_s = State(), 0.0, -1_000.0
    trusted: list[tuple[float, float]] = []
    for tick in range(4 * 3_600):
        now_s = tick / 4
        bad = now_s % 14.0 >= 8.0
        good_since_s = now_s if bad else good_since_s
        found = DOWN if bad else GOOD
        after = step(state, found, age_s=now_s - since_s, good_for_s=now_s - good_since_s, may_eject=True)
        if after is not None:
            since_s = now_s if after.verdict != state.verdict else since_s
            state = after
        trusted.append((now_s, weight(state, now_s - since_s)))
    later = [w for now_s, w in trusted if now_s > 60]
    assert max(later) <= 0.1 and state.flaps > 50
    assert sum(w > 0 for w in later) / len(later) < 0.55


@pytest.mark.parametrize(
    ("verdict", "level", "age_s", "good_for_s", "waits_s"),
    [
        ("healthy", "good", 9.0, 9.0, 0.0),
        ("probation", "good", 0.0, 0.0, 0.0),
        ("suspect", "good", 9.0, 0.25, 0.75),
        ("suspect", "good", 0.5, 9.0, 0.5),
        ("down", "good", 9.0, 0.0, 1.0),
        ("down", "down", 900.0, 0.0, 1.0),
        ("suspect", "suspect", 9.0, 0.0, 1.0),
    ],
)
def test_when_an_edge_could_take_calls_again(
    verdict: str, level: str, age_s: float, good_for_s: float, waits_s: float
) -> None:
    found = Assessment(level=level, action="none", case="x")
    state = State(verdict=verdict)
    assert earliest_s(state, found, age_s=age_s, good_for_s=good_for_s) == waits_s
    if verdict in ("suspect", "down") and level == "good":
        # and the detector keeps to it: not before, and then at once
        early, due = ({"age_s": age_s + t, "good_for_s": good_for_s + t} for t in (waits_s - 0.01, waits_s))
        assert step(state, found, **early, may_eject=True) is None
        assert step(state, found, **due, may_eject=True) is not None
