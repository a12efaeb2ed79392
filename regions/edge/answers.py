"""How long the caller waited for each answer: into the log, into the metrics, and held against the call's budget.

Leaves the stages and the arithmetic to `TurnStages`. The round trip to the caller is what its echoes of our stamps say: the quickest
of the newest, since an echo also waits for the caller's next frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import accumulate

from regions.edge.journal import Journal
from regions.edge.stages import STAGES, TurnStages
from regions.wire.edge_metrics import head

ECHOES_KEPT = 50
BOUNDS_MS = (20, 50, 100, 200, 300, 400, 600, 800, 1_000, 1_200, 1_500, 2_000, 5_000)
"""Upper bounds of the buckets; one more takes the rest."""


class AnswerTimes:
    """Of all answers on this edge, by stage, as its metrics say it."""

    def __init__(self) -> None:
        self._counts = {name: [0] * (len(BOUNDS_MS) + 1) for name in (*STAGES, "total")}
        self._sums: Counter[str] = Counter()
        self.exceeded: Counter[str] = Counter()

    def add(self, stages: Mapping[str, int], total_ms: int, exceeded: list[str]) -> None:
        for name, ms in (*stages.items(), ("total", total_ms)):
            self._counts[name][bisect_left(BOUNDS_MS, ms)] += 1
            self._sums[name] += ms
        self.exceeded.update(exceeded)

    def exposition(self) -> str:
        name, over = "voxplane_edge_answer_ms", "voxplane_edge_answer_budget_exceeded_total"
        bounds = [*map(str, BOUNDS_MS), "+Inf"]
        lines = [head(name)]
        for stage, counts in self._counts.items():
            lines += [
                f'{name}_bucket{{stage="{stage}",le="{bound}"}} {count}\n'
                for bound, count in zip(bounds, accumulate(counts), strict=True)
            ]
            lines.append(
                f'{name}_sum{{stage="{stage}"}} {self._sums[stage]}\n{name}_count{{stage="{stage}"}} {sum(counts)}\n'
            )
        lines.append(head(over))
        lines += [f'{over}{{stage="{stage}"}} {self.exceeded[stage]}\n' for stage in self._counts]
        return "".join(lines)


class Answers:
    """One call's. `now_ms`: of a clock that nobody sets."""

    def __init__(
        self, budget: Mapping[str, float], journal: Journal, times: AnswerTimes, now_ms: Callable[[], int]
    ) -> None:
        self._stages = TurnStages(budget)
        self._journal = journal
        self._times = times
        self._now_ms = now_ms
        self._echoes: deque[int] = deque(maxlen=ECHOES_KEPT)

    def echoed(self, age_ms: int) -> None:
        """The caller has sent a stamp back, so long after it went out."""
        self._echoes.append(age_ms)

    @property
    def rtt_ms(self) -> int | None:
        """To the caller and back, at the most; None where it has sent nothing back yet."""
        return min(self._echoes, default=None)

    def begun(self) -> None:
        """The caller speaks."""
        self._stages.begun()

    def stopped(self, ago_ms: int, waited_ms: int) -> None:
        """Its voice ended `ago_ms` ago. `waited_ms`: of its audio is on its way to the backend."""
        self._stages.voice(self._now_ms() - ago_ms, waited_ms)

    def turn_over(self) -> None:
        self._stages.turn_over(self._now_ms())

    def reported(self, stages: Mapping[str, float]) -> None:
        """What the backend says of its own stages in this turn."""
        self._stages.reported(stages)

    def audio(self) -> None:
        """Audio of the backend's has come."""
        self._stages.audio(self._now_ms())

    def played(self, utterance: int) -> None:
        """The first frame of an utterance goes to the caller."""
        answered = self._stages.played(self._now_ms(), min(self._echoes, default=0))
        if answered is None:
            return
        data = {"utterance": utterance, "total_ms": answered.total_ms, "stages": answered.stages}
        self._journal.record("turn.answered", data)
        if answered.exceeded:
            self._journal.record("turn.budget_exceeded", {**data, "exceeded": answered.exceeded})
        self._times.add(answered.stages, answered.total_ms, answered.exceeded)
