"""Weighted guesses at a caller's round trips to every region, and what they advise: what to expect, and what to measure next.

Pure. One scenario is one row: a round trip for each region, as if it were so. It does not matter here where they come from: from
networks like the caller's (`profiles`), or from what its own network has seen (`belief`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEAR_MS = 10.0
"""So much farther than the nearest is as good as the nearest."""
TIE_PER_MS = 1e-4
LAST_TIE_PER_MS = 1e-6


@dataclass(frozen=True, slots=True)
class Scenarios:
    """`rtt_ms`: (scenarios, regions) in ms; `weight`: how likely each is, 1 in all."""

    rtt_ms: Floats
    weight: Floats

    def with_column(self, column: int, rtt_ms: Floats | float) -> Scenarios:
        """The same with one region's round trips replaced."""
        rows = self.rtt_ms.copy()
        rows[:, column] = rtt_ms
        return Scenarios(rows, self.weight)

    def mean(self) -> Floats:
        expected: Floats = self.weight @ self.rtt_ms
        return expected

    def spread(self, mean: Floats) -> Floats:
        """Mean distance from the mean, in ms."""
        apart: Floats = self.weight @ np.abs(self.rtt_ms - mean)
        return apart

    def next_probes(
        self, measured: Mapping[int, float], count: int, *, of: Iterable[int] | None = None
    ) -> list[int]:
        """The regions (of those in `of`) that are to be measured next: those after which the nearest of all that was measured is
        most likely as near as any. `measured`: what is known already, column: ms."""
        if not self.weight.size:
            return []
        rows = self.rtt_ms.copy()
        for column, rtt_ms in measured.items():
            rows[:, column] = rtt_ms
        nearest = rows.min(axis=1)
        reached = rows[:, list(measured)].min(axis=1) if measured else np.full(len(rows), np.inf)
        open_columns = set(range(rows.shape[1]) if of is None else of) - set(measured)
        mean = self.weight @ rows
        chosen: list[int] = []
        while open_columns and len(chosen) < count:
            after = np.minimum(reached[:, None], rows)
            gain = self.weight @ (after <= nearest[:, None] + NEAR_MS)
            gain -= TIE_PER_MS * (self.weight @ (after - nearest[:, None])) + LAST_TIE_PER_MS * mean
            best = max(open_columns, key=lambda c: (gain[c], -c))
            open_columns.discard(best)
            chosen.append(best)
            reached = after[:, best]
        return chosen
