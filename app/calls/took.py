"""What a create spends its time on: marks, one after the other, for the metrics and for its trace."""

from __future__ import annotations

from app.clock import Clock
from app.telemetry import create_seconds

STAGES = ("check", "place", "commit", "answer")
"""The last of them ends the create."""
_observe = {stage: create_seconds.labels(stage).observe for stage in (*STAGES, "total")}


class Took:
    """`until_s`: since the create began, by stage."""

    __slots__ = ("_before_s", "_began_s", "_monotonic_s", "until_s")

    def __init__(self, clock: Clock) -> None:
        self._monotonic_s = clock.monotonic_s
        self._began_s = self._monotonic_s()
        self._before_s = 0.0
        self.until_s: dict[str, float] = {}

    def over(self, stage: str) -> None:
        """One of `STAGES` ends; the last of them ends the create."""
        now_s = self.until_s[stage] = self._monotonic_s() - self._began_s
        _observe[stage](now_s - self._before_s)
        self._before_s = now_s
        if stage == STAGES[-1]:
            _observe["total"](now_s)
