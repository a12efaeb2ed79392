"""What follows an attempt: done, try again when, give up, or disable the endpoint. Pure: `draw` is the only chance in it.

1. 2xx                              → ``delivered``
2. 410 Gone                         → ``gone``: the endpoint is disabled, the delivery failed
3. the last attempt of the schedule → ``failed``
4. anything else, redirects too     → ``retry`` after the schedule's pause, ±20 %; at least 60 s after 429 and time-outs;
                                      `Retry-After` is honoured between the pause and 24 h
A delivery that has been failing for five minutes is parked: later events of its call overtake it.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULE_S = (0.0, 1.0, 5.0, 30.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
JITTER = 0.2
SLOW_DOWN_S = 60.0
RETRY_AFTER_MAX_S = 86_400.0
PARK_AFTER_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of it. `status` None: no answer, `timed_out` or not. `number`: from 1. `failing_s`: since the first."""

    number: int
    status: int | None
    timed_out: bool = False
    retry_after_s: float | None = None
    failing_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`outcome`: ``delivered``, ``retry``, ``failed`` or ``gone``."""

    outcome: str
    pause_s: float = 0.0
    park: bool = False


def judge(attempt: Attempt, *, draw: float) -> Verdict:
    if attempt.status is not None and 200 <= attempt.status < 300:
        return Verdict(outcome="delivered")
    if attempt.status == 410:
        return Verdict(outcome="gone")
    if attempt.number >= len(SCHEDULE_S):
        return Verdict(outcome="failed")
    pause_s = SCHEDULE_S[attempt.number] * (1 + JITTER * (2 * draw - 1))
    if attempt.status == 429 or attempt.timed_out:
        pause_s = max(pause_s, SLOW_DOWN_S)
    if attempt.retry_after_s is not None:
        pause_s = max(pause_s, min(attempt.retry_after_s, RETRY_AFTER_MAX_S))
    return Verdict(outcome="retry", pause_s=pause_s, park=attempt.failing_s + pause_s >= PARK_AFTER_S)
