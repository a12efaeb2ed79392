"""What became of a call that a drill has cut, from what its edge said, and what the log has. Pure.

RTO: from the cut to the moment from which audio can flow both ways: the caller is at the new edge, and its backend there too
(`agent.connected`). When it did flow (`call.reconnected`) is reported beside it and bound by nothing: an agent that has nothing to
say is no outage. Two clocks can say when:

``edges``     the old edge's time of the cut and the new edge's of the event: exact, where their clocks agree
``database``  the arrival of the edge's word and of the event: one clock, and a few milliseconds of way

The first counts, unless the two differ by more than a second: then a clock of an edge is wrong, and the second counts.

RPO: events that the old owner was told are durable, and that are not in the log (`lost_events`). What it had written and was not
told of was promised to nobody: it is reported as `adopted` (the log has it, from the old owner or its successor) or `dropped`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.fleet.drill_plan import Fate

LOST_AFTER_S = 20.0
CLOCKS_AGREE_MS = 1_000.0
AUDIO_WITHIN_S = 1.0
"""So long a call that is served again is watched for audio, before its report is closed."""
LOSSES = frozenset(
    {"caller_lost", "edge_lost", "agent_lost", "agent_unreachable", "edge_shutdown", "no_answer"}
)
"""Reasons of an end that nobody wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An event of the new owner. `at`: by its clock; `stored_at`: by the database's."""

    at: datetime
    stored_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A call that was cut. `cut_at`: by the edge's clock, `told_at` by the database's. `acked`: the newest event that the
    edge was told is durable; up to it the log has `present`. `unacked` were not, of which the log has `kept`."""

    cut_at: datetime
    told_at: datetime
    since_s: float
    acked: int
    present: int
    unacked: int
    kept: int
    to_epoch: int | None
    to_edge: UUID | None
    to_region: str | None
    served: Moment | None
    since_served_s: float | None
    back: Moment | None
    ended: bool
    end_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """As it is shown. `clock`: which one `rto_ms` is by. `audio_ms`: until audio flowed both ways, where that was seen."""

    outcome: str
    rto_ms: float | None = None
    clock: str = ""
    audio_ms: float | None = None
    lost_events: int = 0
    adopted_events: int = 0
    dropped_events: int = 0
    to_epoch: int | None = None
    to_edge: UUID | None = None
    to_region: str | None = None
    end_reason: str | None = None

    @property
    def fate(self) -> Fate:
        return Fate(outcome=self.outcome, rto_ms=self.rto_ms, lost_events=self.lost_events)


UNTOUCHED = Result(outcome="untouched")


def result_of(seen: Seen) -> Result | None:
    """None while it is not known yet."""
    if seen.ended and seen.end_reason in LOSSES:
        outcome = "lost"
    elif seen.served is not None:
        if seen.back is None and not seen.ended and (seen.since_served_s or 0.0) < AUDIO_WITHIN_S:
            return None
        outcome = "recovered"
    elif seen.ended:
        outcome = "ended"
    elif seen.since_s > LOST_AFTER_S:
        outcome = "lost"
    else:
        return None
    rto_ms, clock = after_cut(seen, seen.served)
    return Result(
        outcome=outcome,
        rto_ms=rto_ms,
        clock=clock,
        audio_ms=after_cut(seen, seen.back)[0],
        lost_events=max(0, seen.acked - seen.present),
        adopted_events=min(seen.unacked, seen.kept),
        dropped_events=max(0, seen.unacked - seen.kept),
        to_epoch=seen.to_epoch,
        to_edge=seen.to_edge,
        to_region=seen.to_region,
        end_reason=seen.end_reason,
    )


def after_cut(seen: Seen, moment: Moment | None) -> tuple[float | None, str]:
    """(milliseconds, by which clock)."""
    if moment is None:
        return None, ""
    by_edges = (moment.at - seen.cut_at).total_seconds() * 1000
    by_database = max(0.0, (moment.stored_at - seen.told_at).total_seconds() * 1000)
    if by_edges < 0 or abs(by_edges - by_database) > CLOCKS_AGREE_MS:
        return round(by_database, 1), "database"
    return round(by_edges, 1), "edges"
