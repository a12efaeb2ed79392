"""What hostile callers make the shared history say, as far as they can make it say anything.

Two worlds. In the one that is (`witnessed`) the history of a network takes only what an edge itself measured towards that
network: its owner
can delay his answers, so that a round trip is longer than it is, and he can do nothing else. What callers claim, of
themselves or of
other people's networks, affects the placement of their own project and nobody else's, so it does not appear here at all. In
the other
(`crafted`) the rows of the hostile are whatever they like.

The hostile are of three kinds in turn: absurd (the most or, where they may, the least there can be), inflated (or deflated)
at random, and
imitators, who look like an honest caller everywhere but at the region that is nearest to him, which they say is far: strangers
that are like him would be led away from it.
"""

from __future__ import annotations

import numpy as np

from app.placement.history import RTT_MS_MAX
from tests.evaluation.placement_world import LEAST_MS, Floats

SHARE = 0.10
FAR_MS = 500.0
KINDS = 3


def hostile_callers(callers: int, seed: int = 0) -> Floats:
    """Which of the callers, as a mask."""
    mask = np.zeros(callers, dtype=bool)
    mask[np.random.default_rng(seed).permutation(callers)[: round(SHARE * callers)]] = True
    return mask


def witnessed(rtt_ms: Floats, hostile: Floats, seed: int = 0) -> Floats:
    """What the history is told, (slices, callers, regions), where the hostile can only answer late."""
    chance = np.random.default_rng(seed)
    told = rtt_ms.copy()
    honest = np.flatnonzero(~hostile)
    typical = np.median(rtt_ms, axis=0)
    for n, caller in enumerate(np.flatnonzero(hostile).tolist()):
        if n % KINDS == 0:
            told[:, caller] = RTT_MS_MAX
        elif n % KINDS == 1:
            told[:, caller] *= chance.uniform(1.0, 5.0, rtt_ms.shape[2])
        else:
            # whom he can pass for with the least that is out of his reach
            beyond = np.maximum(typical[caller] - typical[honest], 0.0).sum(axis=1)
            victim = int(honest[chance.choice(np.argsort(beyond)[:10])])
            told[:, caller] = np.maximum(rtt_ms[:, caller], _imitation(rtt_ms[:, victim], deflate=False))
    return told


def crafted(rtt_ms: Floats, hostile: Floats, seed: int = 0) -> Floats:
    """The same where they can say anything."""
    chance = np.random.default_rng(seed)
    told = rtt_ms.copy()
    honest = np.flatnonzero(~hostile)
    for n, caller in enumerate(np.flatnonzero(hostile).tolist()):
        if n % KINDS == 0:
            told[:, caller] = chance.choice([LEAST_MS, RTT_MS_MAX], rtt_ms.shape[2])
        elif n % KINDS == 1:
            told[:, caller] *= chance.uniform(0.0, 2.0, rtt_ms.shape[2])
        else:
            told[:, caller] = _imitation(rtt_ms[:, int(chance.choice(honest))], deflate=True)
    return np.maximum(told, LEAST_MS)


def _imitation(of: Floats, *, deflate: bool) -> Floats:
    """(slices, regions) of an honest caller, with his nearest region far away and, where it can be said, his farthest near."""
    lie = of.copy()
    typical = np.median(of, axis=0)
    lie[:, typical.argmin()] = FAR_MS
    if deflate:
        lie[:, typical.argmax()] = LEAST_MS
    return lie
