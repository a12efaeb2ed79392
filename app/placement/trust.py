"""How far each network is believed as a guess at what strangers look like, from 0 to 1. Pure.

Decides by what the networks say of each other, and asks two questions of each:

1. **Is it like anybody?** What is like nobody lies, or is alone, and says little of others either way. It is measured by its second
   best match, for two may lie together; who is matched as well as half of all are is believed whole.
2. **Is one region farther for it than for those that are otherwise like it?** A network cannot seem nearer to an edge than it is, but
   it can answer one region late and pass for somebody honest everywhere else. A region of it is too far by what it is above the
   lower quarter of its likes: the lower, because lies lie above; and its eight best likes have a vote each, however like it they
   are, because liars of one story are like each other to the hair. So five of one story are found out. The region that is too far
   by most counts.

Trust is divided by 1 + (excess / `EXCESS_MS`)²: a lie that keeps its weight is a small one, and a large one loses its weight faster
than it grows. Excess times trust is `EXCESS_MS / 2` at most, so that is about what a liar can add to the round trip that is expected
of a stranger whom an honest network is as like, whatever it says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.placement.likeness import TAIL, Floats, apart

JUDGES_MIN = 20
"""Fewer say too little of each other."""
REGIONS_MIN = 4
"""With fewer, what the others say of one region is no more than a guess."""
STRANGE = 4.0
LOW = 0.25
LIKES = 8
EXCESS_MS = 60.0
TRUST_MIN = 1e-6


def trust_in(rows: Floats) -> Floats:
    """`rows`: one for each network, one column for each region, without a gap; ms. One figure for each row."""
    count, regions = rows.shape
    if count < JUDGES_MIN:
        return np.ones(count)
    by_region = np.ascontiguousarray(rows.T)
    nearest_first = by_region.argsort(axis=1, kind="stable")
    matched, excess = np.empty(count), np.zeros(count)
    for i, row in enumerate(rows):
        distance, last_mile = apart(by_region, row[:, None])
        odds = -TAIL * np.log(distance[:-1])
        alike = odds.sum(axis=0)
        alike[i] = -np.inf
        matched[i] = np.partition(alike, -2)[-2]
        if regions >= REGIONS_MIN:
            usual = _lower(by_region, nearest_first, alike - odds, last_mile)
            excess[i] = max(0.0, float((row - usual).max()))
    trust: Floats = np.exp(np.minimum(0.0, (matched - np.median(matched)) / STRANGE))
    trust /= 1.0 + (excess / EXCESS_MS) ** 2
    return np.maximum(trust, TRUST_MIN)


def _lower(by_region: Floats, nearest_first: NDArray[np.intp], odds: Floats, last_mile: Floats) -> Floats:
    """For each region the `LOW` quantile of what the networks say of it. `odds`: logarithms, one row for each region: how alike each
    network is by all the other regions; the `LIKES` best count alike."""
    voter = odds.shape[1] - LIKES
    whole = np.partition(odds, voter, axis=1)[:, voter : voter + 1]
    weight = np.exp(np.minimum(odds - whole, 0.0))
    summed = np.take_along_axis(weight, nearest_first, axis=1).cumsum(axis=1)
    columns = np.arange(len(by_region))
    who = nearest_first[columns, (summed >= LOW * summed[:, -1:]).argmax(axis=1)]
    usual: Floats = by_region[columns, who] + last_mile[who]
    return usual
