"""A drill as the API shows it: its state in words, each call, and the figures over all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.clock import rfc3339
from app.fleet.drill_report import Result
from app.fleet.drill_shapes import DrilledCall, DrillSummary, DrillView
from app.fleet.drill_store import CallRow, Drill
from regions.wire import ids


def drill_view(drill: Drill, calls: Sequence[CallRow] | None) -> DrillView:
    """`calls` None: without them and the summary."""
    state = "ended" if drill.ended_at is not None else "stopping" if drill.halt is not None else "running"
    return DrillView(
        id=ids.encode(ids.DRILL, drill.id),
        state=state,
        verdict=drill.verdict,
        reason=drill.reason,
        region=drill.region,
        edge=ids.encode(ids.EDGE, drill.edge_id) if drill.edge_id is not None else None,
        request=drill.request,
        total=drill.total,
        wave=drill.wave,
        started_at=rfc3339(drill.started_at),
        deadline=rfc3339(drill.deadline_at),
        ended_at=rfc3339(drill.ended_at) if drill.ended_at is not None else None,
        summary=summary(calls) if calls is not None else None,
        per_call=[_call(c) for c in calls] if calls is not None else None,
    )


def summary(calls: Sequence[CallRow]) -> DrillSummary:
    results = [c.result for c in calls if c.result is not None]
    outcomes = Counter(r.outcome for r in results)
    rtos = sorted(r.rto_ms for r in results if r.rto_ms is not None)
    return DrillSummary(
        cut=sum(
            c.cut_at is not None and (c.result is None or c.result.outcome != "untouched") for c in calls
        ),
        recovered=outcomes["recovered"],
        ended=outcomes["ended"],
        lost=outcomes["lost"],
        untouched=outcomes["untouched"],
        open=len(calls) - len(results),
        rto_p50_ms=_quantile(rtos, 0.5),
        rto_p99_ms=_quantile(rtos, 0.99),
        rto_max_ms=rtos[-1] if rtos else None,
        lost_events=sum(r.lost_events for r in results),
        adopted_events=sum(r.adopted_events for r in results),
        dropped_events=sum(r.dropped_events for r in results),
    )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest rank; None of nothing."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _call(row: CallRow) -> DrilledCall:
    result = row.result or Result(outcome="")
    return DrilledCall(
        call_id=ids.encode(ids.CALL, row.call_id),
        wave=row.wave,
        from_region=row.region,
        from_edge=ids.encode(ids.EDGE, row.edge_id),
        from_epoch=row.epoch,
        cut_at=rfc3339(row.cut_at) if row.cut_at is not None and result.outcome != "untouched" else None,
        outcome=result.outcome or None,
        to_region=result.to_region,
        to_edge=ids.encode(ids.EDGE, result.to_edge) if result.to_edge is not None else None,
        to_epoch=result.to_epoch,
        rto_ms=result.rto_ms,
        clock=result.clock,
        audio_ms=result.audio_ms,
        lost_events=result.lost_events,
        adopted_events=result.adopted_events,
        dropped_events=result.dropped_events,
        end_reason=result.end_reason,
    )
