"""What a create spends its time on: marks, one after the other, for the metrics and for its trace."""

from __future__ import annotations

from app.clock import Clock
from app.telemetry import create_seconds

STAGES = ("check", "place", "commit", "answer")
_children = {stage: create_seconds.labels(stage) for stage in (*STAGES, "total")}


class Took:
    """`until_s`: since the create began, by stage."""

    __slots__ = ("_began_s", "_clock", "until_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self.until_s: dict[str, float] = {}

    def over(self, stage: str) -> None:
        """One of `STAGES` ends; the last of them ends the create."""
        before = next(reversed(self.until_s.values()), 0.0)
        now = self.until_s[stage] = self._clock.monotonic_s() - self._began_s
        _children[stage].observe(now - before)
        if stage == STAGES[-1]:
            _children["total"].observe(now)
