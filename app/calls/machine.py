"""The states of a call, as a table beside its diagram. Pure.

    ringing ──call.answered──► in_progress ◄──call.reconnected / call.moved── reconnecting
       │                          │  └──────────call.reconnecting──────────────►  │
       └─────────────── call.ended ──────────────┴───────────────────────────────-┘
                           │
                           ▼
            completed | failed | busy | no_answer | canceled

`queued` precedes `ringing` for kinds of callers that are dialled. The same fold runs in the database (``vx.state_after``),
under the call's lock; a test holds the two to each other.
"""

from __future__ import annotations

from enum import StrEnum

from regions.wire.events import EndReason


class CallState(StrEnum):
    QUEUED = "queued"
    RINGING = "ringing"
    IN_PROGRESS = "in_progress"
    RECONNECTING = "reconnecting"
    COMPLETED = "completed"
    FAILED = "failed"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    CANCELED = "canceled"


FINAL = frozenset(
    {CallState.COMPLETED, CallState.FAILED, CallState.BUSY, CallState.NO_ANSWER, CallState.CANCELED}
)

AFTER: dict[str, CallState] = {
    "call.ringing": CallState.RINGING,
    "call.answered": CallState.IN_PROGRESS,
    "call.reconnecting": CallState.RECONNECTING,
    "call.reconnected": CallState.IN_PROGRESS,
    "call.moved": CallState.IN_PROGRESS,
}

COMPLETED_REASONS = frozenset(
    {
        EndReason.CALLER_HUNG_UP,
        EndReason.AGENT_HUNG_UP,
        EndReason.ENDED_BY_API,
        EndReason.MAX_DURATION,
        EndReason.RESOLVED,
        EndReason.IDLE,
        EndReason.CALLER_SILENT,
        EndReason.MONOLOGUE,
        EndReason.ERASED,
    }
)


def state_after(
    state: CallState, type_: str, *, end_reason: str | None = None, answered: bool = True
) -> CallState:
    """The state once an event of `type_` is stored. A final state stays; events that say nothing about it change nothing."""
    if state in FINAL:
        return state
    if type_ == "call.ended":
        return final_state(end_reason, answered=answered)
    return AFTER.get(type_, state)


def final_state(end_reason: str | None, *, answered: bool) -> CallState:
    """1. nobody attached: `no_answer`. 2. Called off before an answer: `canceled`. 3. Ended by will: `completed`. 4. `failed`."""
    if end_reason in ("no_answer", "busy"):
        return CallState(end_reason)
    called_off = end_reason in (EndReason.ENDED_BY_API, EndReason.ERASED) and not answered
    if end_reason == EndReason.CANCELED or called_off:
        return CallState.CANCELED
    if end_reason in COMPLETED_REASONS:
        return CallState.COMPLETED
    return CallState.FAILED
