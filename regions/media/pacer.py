"""One clock for all calls of the process: every call's turn comes each 20 ms, on an absolute schedule.

Calls are spread over eight phases of 2.5 ms, so that they do not all want the processor at once. After a stall at most two
missed turns are made up; the rest are let go, for audio that is late is lost anyway. How late turns begin is measured.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

PERIOD_NS = 20_000_000
PHASES = 8
PHASE_NS = PERIOD_NS // PHASES
CATCH_UP = 2
SAMPLES = 4_096
LATE_MS = (1, 2, 5, 10, 20, 50, 100)
"""Upper bounds of the buckets in which turns are counted by their lateness; one more takes the rest."""
LATE_NS = tuple(ms * 1_000_000 for ms in LATE_MS)

Turn = Callable[[int], None]
"""Called with the time in nanoseconds of `time.monotonic_ns`."""


class Pacer:
    def __init__(self, on_error: Callable[[Turn, Exception], None]) -> None:
        self._on_error = on_error
        self._phases: list[dict[Turn, None]] = [{} for _ in range(PHASES)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_ns = 0
        self._phase = 0
        self._late_ns: deque[int] = deque(maxlen=SAMPLES)
        self.late_turns = [0] * (len(LATE_MS) + 1)
        """Since the start; by bucket."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def add(self, turn: Turn) -> None:
        """To the phase with the fewest calls."""
        min(self._phases, key=len)[turn] = None
        self._wake()

    def remove(self, turn: Turn) -> None:
        for phase in self._phases:
            phase.pop(turn, None)

    @property
    def idle(self) -> bool:
        """No timer runs: an edge without calls costs nothing."""
        return self._timer is None

    def lateness_p99_ms(self) -> float:
        """Of the newest turns; 0 where there were none."""
        if not self._late_ns:
            return 0.0
        ordered = sorted(self._late_ns)
        return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e6

    def _run(self) -> None:
        assert self._loop is not None
        now = time.monotonic_ns()
        if now - self._next_ns > CATCH_UP * PERIOD_NS:
            missed = (now - self._next_ns) // PHASE_NS - CATCH_UP * PHASES
            self._next_ns += missed * PHASE_NS
            self._phase = (self._phase + missed) % PHASES
        while self._next_ns <= now:
            for turn in tuple(self._phases[self._phase]):
                began = time.monotonic_ns()
                late_ns = began - self._next_ns
                self._late_ns.append(late_ns)
                self.late_turns[bisect_left(LATE_NS, late_ns)] += 1
                try:
                    turn(began)
                except Exception as error:  # noqa: BLE001  one call's fault is not another's
                    self.remove(turn)
                    self._on_error(turn, error)
            self._advance()
            now = time.monotonic_ns()
        for _ in range(PHASES):
            if self._phases[self._phase]:
                break
            self._advance()
        else:
            # nobody is here: the clock stands still until somebody comes
            self._timer = None
            return
        self._timer = self._loop.call_later(max(0, self._next_ns - now) / 1e9, self._run)

    def _advance(self) -> None:
        self._phase = (self._phase + 1) % PHASES
        self._next_ns += PHASE_NS

    def _wake(self) -> None:
        if self._loop is not None and self._timer is None and any(self._phases):
            self._next_ns = time.monotonic_ns() + PHASE_NS
            self._timer = self._loop.call_later(PHASE_NS / 1e9, self._run)
