"""What a detector must and must not say, one function each: None where it holds, else a sentence that says what is broken. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from app.fleet.detector import Judgement, Look, Transition
from app.fleet.verdicts import State
from app.fleet.votes import Report

Broken = str | None
LAG_MAX_S, READ_MAX_S = 1.5, 1.0
SHARE = 3
VANTAGES_MIN = 2


def never_more_than_a_third(states: Sequence[State], edges: int) -> Broken:
    """The detector's word alone never takes more than a third of the fleet out of service."""
    ejected = sum(s.verdict == "down" or s.action == "evacuate" for s in states)
    return f"{ejected} of {edges} edges are ejected" if ejected > max(1, edges // SHARE) else None


def silence_only_quarantines(transition: Transition, reports: Sequence[Report], bad: set[UUID]) -> Broken:
    """Calls are moved off an edge only where two vantages saw it refuse or fail, and it did."""
    if transition.after.action != "evacuate" or transition.before.action == "evacuate":
        return None
    regions = {
        r.region for r in reports for s in r.seen if s.edge == transition.edge and s.outcome in ("refused", "error")
    }  # fmt: skip
    if len(regions) < VANTAGES_MIN:
        return f"edge {transition.edge.int} is evacuated ({transition.after.case}), by the word of {len(regions)} vantages"
    return None if transition.edge in bad else f"edge {transition.edge.int} is evacuated, and never failed"


def who_lags_abstains(look: Look, gap_s: float, read_s: float) -> Broken:
    """An observer whose own looks or reads came late changes nothing."""
    if (gap_s > LAG_MAX_S or read_s > READ_MAX_S) and (look.transitions or not look.abstains):
        return f"an observer judges, {gap_s:.1f} s after its last look, with a read that took {read_s:.1f} s"
    return None


def the_same_rows_say_the_same(one: Look, other: Look) -> Broken:
    """Two instances that have seen the same say the same, in whatever order they read it."""
    for edge, judged in one.judgements.items():
        if _said(judged) != _said(other.judgements[edge]):
            return f"edge {edge.int}: {_said(judged)} for one, {_said(other.judgements[edge])} for the other"
    return None if set(one.transitions) == set(other.transitions) else "two observers decide differently"


def _said(judged: Judgement) -> tuple[object, ...]:
    """Without the order in which its evidence was read."""
    return (
        judged.health,
        judged.weight,
        judged.state,
        judged.found,
        judged.signals.vote.outcome,
        judged.good_for_s,
    )


def who_is_healthy_is_taken_for_it(states: Mapping[str, State]) -> Broken:
    """Once nothing fails, and after the probation that is stated, every edge is healthy."""
    found = [f"{name} is {s.verdict} ({s.case})" for name, s in states.items() if s.verdict != "healthy"]
    return f"nothing fails any more, and {', '.join(found)}" if found else None
