"""How far networks are apart by what was seen of both: the kernel that weighs profiles and that doubts them. Pure.

Where one is as much nearer or farther than the other at all regions, that is its last mile, and half of it is believed. Tails are
heavy, so that no profile is ever ruled out by one odd value, and none that lies can take a stranger along by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LAST_MILE_BELIEVED = 0.5
LAST_MILE_SCALE_MS = 40.0
SCALE_MS, SCALE_SHARE = 2.0, 0.04
TAIL = 1.5
"""How unlikely two are alike: the product of what `apart` says, to this power."""


def apart(known: Floats, seen: Floats) -> tuple[Floats, Floats]:
    """For each of the `known` (one row for each region, one column for each network) how far it is from what was `seen` (the same, or
    one column): 1 where it is the same, more in each row the farther it is, and one row more for the last mile. And that, in ms."""
    distance = np.empty((len(known) + 1, known.shape[1]))
    by_region = distance[:-1]
    np.subtract(seen, known, out=by_region)
    last_mile = LAST_MILE_BELIEVED * _middle(by_region)
    scale = np.minimum(seen, known)
    scale *= SCALE_SHARE
    scale += SCALE_MS
    by_region -= last_mile
    by_region /= scale
    np.divide(last_mile, LAST_MILE_SCALE_MS, out=distance[-1])
    distance *= distance
    distance += 1.0
    return distance, last_mile


def _middle(off: Floats) -> Floats:
    """The median of each column; `np.median` takes longer than all the rest."""
    count = len(off)
    if count <= 2:
        middle: Floats = off.sum(axis=0) / count
    elif count <= 4:
        # all but the least and the most
        middle = off.sum(axis=0) - off.min(axis=0) - off.max(axis=0)
        middle /= count - 2
    else:
        ordered = off.T.copy()
        ordered.sort(axis=1)
        middle = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle
