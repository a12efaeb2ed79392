"""Says in figures and words why an edge is held for what it is, and what would change that. Pure.

The figures are those the detector decided by, observers and all: whoever reads them can come to another opinion.
"""

from __future__ import annotations

from typing import Any

from app.fleet.arrivals import PHI_DOUBTED, PHI_SUSPECT, SUSPECT_DOUBTED_S, SUSPECT_MAX_S, SUSPECT_MIN_S
from app.fleet.detector import Judgement
from app.fleet.verdicts import DOWN_AFTER_S, DOWN_AGREED_S, RECOVERED_AFTER_S, probation_s
from app.fleet.votes import FAILING_SHARE, SAMPLES_MIN, STREAK_MIN
from regions.wire import ids

WHY = {
    "good": "nothing speaks against it",
    "refused": "probes from several vantages find nobody listening there, or errors",
    "silent": "no heartbeat, and the vote does not say that it is up",
    "gone": "no heartbeat in time, and the only vantage there is finds nobody listening",
    "failing": "callers leave it, towards several regions",
    "left": "callers leave it",
    "late": "a heartbeat is overdue",
    "unreachable": "it is heard, and most vantages do not reach it",
    "held": "it would be down, and a third of the fleet is down already",
}


def why(judged: Judgement) -> str:
    if not judged.proven:
        return "this instance has not watched it for long enough, and it was silent before"
    return WHY.get(judged.state.case, judged.state.case)


def signals(judged: Judgement) -> list[dict[str, Any]]:
    """One per signal: what it says, its figures, and who observed it."""
    found, vote, callers = judged.signals, judged.signals.vote, judged.signals.callers
    silence = "silent" if found.silent_s > DOWN_AFTER_S else "late" if found.late else "in_time"
    return [
        {
            "signal": "heartbeats",
            "says": silence,
            "figures": {
                "silent_s": round(found.silent_s, 2),
                "phi": round(found.phi, 2),
                "interval_mean_s": round(judged.mean_s, 3),
                "interval_deviation_s": round(judged.deviation_s, 3),
            },
            "observers": ["this instance"],
        },
        {
            "signal": "probes",
            "says": vote.outcome,
            "figures": {
                "basis": vote.basis,
                "newest_failed": vote.doubted,
                "ballots": [
                    {
                        "region": b.region,
                        "outcome": b.outcome,
                        "in_a_row": b.streak,
                        "rtt_ms": round(b.rtt_ms, 1),
                        "observers": [ids.encode(ids.EDGE, o) for o in b.observers],
                    }
                    for b in vote.ballots
                ],
                "abstained": [
                    {"observer": ids.encode(ids.EDGE, o), "why": reason} for o, reason in vote.abstained
                ],
            },
            "observers": [b.region for b in vote.ballots],
        },
        {
            "signal": "callers",
            "says": "failing"
            if callers.failing
            else "too_few"
            if callers.samples < SAMPLES_MIN
            else "content",
            "figures": {
                "left": callers.left,
                "samples": callers.samples,
                "share": round(callers.share, 3),
                "reasons": dict(callers.reasons),
            },
            "observers": list(callers.regions),
        },
    ]


def would_change(judged: Judgement) -> list[str]:
    state = judged.state
    worse = (
        f"down after {DOWN_AFTER_S:g} s without a heartbeat, or {DOWN_AGREED_S:g} s where the vote agrees; "
        f"at once where several vantages are refused {STREAK_MIN} times in a row"
    )
    match state.verdict:
        case "healthy":
            return [
                f"suspect when a heartbeat is overdue: after {SUSPECT_MIN_S:g} s with phi above {PHI_SUSPECT:g} "
                f"({SUSPECT_DOUBTED_S:g} s and {PHI_DOUBTED:g} where most newest probes failed too), or after {SUSPECT_MAX_S:g} s",
                f"suspect when more than {FAILING_SHARE:.0%} of at least {SAMPLES_MIN} callers leave it within 10 s",
                worse,
            ]
        case "suspect":
            after = "probation" if state.owed else "healthy"
            return [f"{after} when nothing has spoken against it for {RECOVERED_AFTER_S:g} s", worse]
        case "down":
            return [
                f"probation when nothing has spoken against it for {RECOVERED_AFTER_S:g} s, for {probation_s(state.flaps):g} s"
            ]
        case _:
            left_s = max(0.0, probation_s(state.flaps) - judged.age_s)
            return [f"healthy in {left_s:.0f} s, if nothing speaks against it until then", worse]


def evidence(judged: Judgement) -> dict[str, Any]:
    """What stands in an event and in a log line of a transition."""
    said = {s["signal"]: {"says": s["says"], **s["figures"]} for s in signals(judged)}
    return {"case": judged.state.case, "why": WHY.get(judged.state.case, ""), "signals": said}
