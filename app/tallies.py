"""Histograms for what is observed several times in each request: a tenth of the library's price, as long as one thread observes.

The library takes a lock for every bucket and sum. These are observed on the event loop alone, where nothing comes between.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import Histogram
from prometheus_client.samples import Sample


class Tallies(Histogram):
    """Observed on the event loop, and nowhere else."""

    def _metric_init(self) -> None:
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """`amount`: never NaN. No exemplars are kept."""
        self._counts[bisect_left(self._upper_bounds, amount)] += 1
        self._total += amount

    def _child_samples(self) -> Iterable[Sample]:
        upto = list(accumulate(self._counts))
        for bound, count in zip(self._upper_bounds, upto, strict=True):
            le = "+Inf" if bound == math.inf else str(bound)
            yield Sample("_bucket", {"le": le}, count, None, None)
        yield Sample("_count", {}, upto[-1], None, None)
        yield Sample("_sum", {}, self._total, None, None)
