"""What networks that are known well say of one that is not: each is a guess at what the stranger's round trips look like.

Decides how likely each guess is after some round trips of the stranger were seen, and which regions a stranger should probe first
(landmarks). Pure. A profile is the round trips of one network to all regions; a stranger that looks like it at the regions it has
measured (`likeness`) is taken to look like it at the others, as far as the profile itself is believed (`trust`). This is a kernel
regression (Nadaraya, Watson 1964) on round trips to landmarks, as in Ng and Zhang, "Predicting Internet Network Distance with
Coordinates-Based Approaches", INFOCOM 2002, without the coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.placement.likeness import SCALE_MS, SCALE_SHARE, TAIL, Floats, apart
from app.placement.scenarios import NEAR_MS, Scenarios
from app.placement.trust import trust_in

PROFILES_MAX = 384
PROFILES_MIN = 20
"""Fewer say too little of the world."""
KNOWN_MIN = 2
"""A profile knows at least so many regions by itself."""
MULTIPLIED_MAX = 16
"""For so many regions the odds are multiplied as they are, and not their logarithms added: none is then as small as nothing."""
PLAUSIBLE_MS = 0.2
LANDMARKS = 2


@dataclass(frozen=True, slots=True)
class Profiles:
    """`rtt_ms`: one row for each network, one column for each of `regions`, without a gap. `trust`: how far each is believed, 0 to 1;
    `landmarks`: columns that a stranger measures first. `by_region`: the same round trips with one row for each region, each in one
    piece of memory: what is computed on the way of a request goes over all networks at a time."""

    regions: tuple[str, ...]
    rtt_ms: Floats
    trust: Floats
    landmarks: tuple[int, ...] = ()
    by_region: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_region", np.ascontiguousarray(self.rtt_ms.T))

    def given(self, evidence: Mapping[int, float]) -> Scenarios:
        """What a stranger may look like whose round trips to some regions (column: ms) are known."""
        return _given(self.by_region, self.trust, evidence)

    def expected(self, evidence: Mapping[int, float]) -> Floats:
        """The mean of `given`, without a row for each guess: one round trip for each region."""
        if not evidence:
            mean: Floats = self.trust @ self.rtt_ms / self.trust.sum()
            return mean
        weight, last_mile = _alike(self.by_region, self.trust, evidence)
        return np.maximum(weight @ self.rtt_ms + weight @ last_mile, PLAUSIBLE_MS)

    @property
    def useful(self) -> bool:
        return len(self.rtt_ms) >= PROFILES_MIN


NONE = Profiles((), np.zeros((0, 0)), np.zeros(0))


def profiles_of(regions: Sequence[str], rows: Floats) -> Profiles:
    """From rows with gaps (NaN). The gaps are filled with what the rows that are like it know. Costs half a second of
    processor time for 384 rows of 50 regions: not for the request's path."""
    rows = rows[np.isfinite(rows).sum(axis=1) >= min(KNOWN_MIN, max(1, len(regions)))][:PROFILES_MAX]
    if not len(rows):
        return NONE
    whole = _filled(rows)
    trust = trust_in(whole)
    return Profiles(tuple(regions), whole, trust, _landmarks(whole, trust))


def _given(by_region: Floats, trust: Floats, evidence: Mapping[int, float]) -> Scenarios:
    rows = by_region.T
    if not evidence:
        return Scenarios(rows, trust / trust.sum())
    weight, last_mile = _alike(by_region, trust, evidence)
    return Scenarios(np.maximum(rows + last_mile[:, None], PLAUSIBLE_MS), weight)


def _alike(by_region: Floats, trust: Floats, evidence: Mapping[int, float]) -> tuple[Floats, Floats]:
    """For each profile how likely the stranger is like it, and how much farther from everything it then is, in ms."""
    seen = np.array(list(evidence.values()))
    distance, last_mile = apart(by_region.take(list(evidence), axis=0), seen[:, None])
    if len(seen) > MULTIPLIED_MAX:
        odds = -TAIL * np.log(distance).sum(axis=0)
        weight = np.exp(odds - odds.max()) * trust
    else:
        unlikely = distance.prod(axis=0)
        unlikely *= np.sqrt(unlikely)  # to the power of `TAIL`, in half the time
        weight = trust / unlikely
    return weight / weight.sum(), last_mile


def _filled(rows: Floats) -> Floats:
    """Each gap: the mean of what rows that know it say, weighted by how alike the two are where both know."""
    known = np.isfinite(rows)
    if known.all():
        return rows
    zeros = np.where(known, rows, 0.0)
    column_mean = zeros.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    column_mean[~known.any(axis=0)] = zeros.sum() / max(1, known.sum())
    whole = np.where(known, rows, column_mean)
    for i in np.flatnonzero(~known.all(axis=1)):
        mine = known[i]
        both = known[:, mine]
        scale = SCALE_MS + SCALE_SHARE * rows[i, mine]
        off = np.where(both, np.log1p(((zeros[:, mine] - rows[i, mine]) / scale) ** 2), 0.0)
        shared = both.sum(axis=1)
        alike = np.where(shared > 0, np.exp(-TAIL * off.sum(axis=1) / np.maximum(shared, 1)), 0.0)
        alike[i] = 0.0
        for gap in np.flatnonzero(~mine):
            weight = alike * known[:, gap]
            if weight.sum() > 1e-9:
                whole[i, gap] = weight @ zeros[:, gap] / weight.sum()
    return whole


def _landmarks(rows: Floats, trust: Floats) -> tuple[int, ...]:
    """The two regions of which one or the other is as near as any for the most networks: a stranger like those needs nothing more,
    and its ways to the two busiest places tell it from the others. Each network has one vote, as far as it is believed. (To try pairs
    out on the networks themselves finds no better one: nearly all do well there, and which does best is chance or a lie.)"""
    if rows.shape[1] <= LANDMARKS:
        return tuple(range(rows.shape[1]))
    near = (rows <= rows.min(axis=1, keepdims=True) + NEAR_MS).T.astype(float)
    votes = near * trust
    alone = votes.sum(axis=1)
    either = np.triu(alone[:, None] + alone - votes @ near.T, 1)
    one, other = np.unravel_index(int(either.argmax()), either.shape)
    return int(one), int(other)
