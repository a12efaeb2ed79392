"""What networks that are known well say of one that is not: each is a guess at what the stranger's round trips look like.

Decides how likely each guess is after some round trips of the stranger were seen, and which regions a stranger should probe first
(landmarks). Pure. A profile is the round trips of one network to all regions; a stranger that looks like it at the regions it has
measured is taken to look like it at the others. Where the stranger is as much nearer or farther than the profile at all of them,
that is its last mile, and half of it is believed. Likelihoods have heavy tails, so that a profile is never ruled out by one odd
value, and none that lies can take the stranger along by itself. This is a kernel regression (Nadaraya, Watson 1964) on round trips
to landmarks, as in Ng and Zhang, "Predicting Internet Network Distance with Coordinates-Based Approaches", INFOCOM 2002, without
the coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.placement.scenarios import Scenarios

Floats = NDArray[np.float64]

PROFILES_MAX = 384
PROFILES_MIN = 20
"""Fewer say too little of the world."""
KNOWN_MIN = 2
"""A profile knows at least so many regions by itself."""
LAST_MILE_BELIEVED = 0.5
LAST_MILE_SCALE_MS = 40.0
SCALE_MS, SCALE_SHARE = 2.0, 0.04
TAIL = 1.5
PLAUSIBLE_MS = 0.2
LANDMARKS = 2
TRIAL_PROFILES = 32
STRANGE = 4.0
TRUST_MIN = 1e-6


@dataclass(frozen=True, slots=True)
class Profiles:
    """`rtt_ms`: one row for each network, one column for each of `regions`, without a gap. `trust`: how far each is believed, 0 to 1;
    `landmarks`: columns that a stranger measures first."""

    regions: tuple[str, ...]
    rtt_ms: Floats
    trust: Floats
    landmarks: tuple[int, ...] = ()

    def given(self, evidence: Mapping[int, float]) -> Scenarios:
        """What a stranger may look like whose round trips to some regions (column: ms) are known."""
        return _given(self.rtt_ms, self.trust, evidence)

    def expected(self, evidence: Mapping[int, float]) -> Floats:
        """The mean of `given`, without a row for each guess: one round trip for each region."""
        if not evidence:
            mean: Floats = self.trust @ self.rtt_ms / self.trust.sum()
            return mean
        weight, last_mile = _alike(self.rtt_ms, self.trust, evidence)
        return np.maximum(weight @ self.rtt_ms + weight @ last_mile, PLAUSIBLE_MS)

    @property
    def useful(self) -> bool:
        return len(self.rtt_ms) >= PROFILES_MIN


NONE = Profiles((), np.zeros((0, 0)), np.zeros(0))


def profiles_of(regions: Sequence[str], rows: Floats) -> Profiles:
    """From rows with gaps (NaN). The gaps are filled with what the rows that are like it know. Costs about a second of processor
    time for 512 rows of 50 regions: not for the request's path."""
    rows = rows[np.isfinite(rows).sum(axis=1) >= min(KNOWN_MIN, max(1, len(regions)))][:PROFILES_MAX]
    if not len(rows):
        return NONE
    whole = _filled(rows)
    trust = _trust(whole)
    return Profiles(tuple(regions), whole, trust, _landmarks(whole, trust))


def _given(rows: Floats, trust: Floats, evidence: Mapping[int, float]) -> Scenarios:
    if not evidence:
        return Scenarios(rows, trust / trust.sum())
    weight, last_mile = _alike(rows, trust, evidence)
    return Scenarios(np.maximum(rows + last_mile[:, None], PLAUSIBLE_MS), weight)


def _alike(rows: Floats, trust: Floats, evidence: Mapping[int, float]) -> tuple[Floats, Floats]:
    """For each profile how likely the stranger is like it, and how much farther from everything it then is, in ms."""
    columns = list(evidence)
    seen = np.array([evidence[c] for c in columns])
    known = rows[:, columns]
    apart = seen - known
    last_mile = LAST_MILE_BELIEVED * _middle(apart)
    scale = SCALE_MS + SCALE_SHARE * np.minimum(seen, known)
    odds = -TAIL * np.log1p(((apart - last_mile[:, None]) / scale) ** 2).sum(axis=1)
    odds -= TAIL * np.log1p((last_mile / LAST_MILE_SCALE_MS) ** 2)
    weight = np.exp(odds - odds.max()) * trust
    return weight / weight.sum(), last_mile


def _trust(rows: Floats) -> Floats:
    """Who is like nobody says little of others: it lies, or is alone. Measured by its second best match, for two may lie together;
    those that are matched as well as half of all are believed whole."""
    if len(rows) < PROFILES_MIN:
        return np.ones(len(rows))
    matched = np.empty(len(rows))
    for i, row in enumerate(rows):
        apart = row - rows
        last_mile = LAST_MILE_BELIEVED * _middle(apart)
        scale = SCALE_MS + SCALE_SHARE * np.minimum(row, rows)
        odds = -TAIL * np.log1p(((apart - last_mile[:, None]) / scale) ** 2).sum(axis=1)
        odds[i] = -np.inf
        matched[i] = np.partition(odds, -2)[-2]
    trust: Floats = np.exp(np.minimum(0.0, (matched - np.median(matched)) / STRANGE))
    return np.maximum(trust, TRUST_MIN)


def _middle(apart: Floats) -> Floats:
    """The median of each row; `np.median` takes longer than all the rest."""
    ordered = np.sort(apart, axis=1)
    count = apart.shape[1]
    middle: Floats = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle


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
        apart = np.where(both, np.log1p(((zeros[:, mine] - rows[i, mine]) / scale) ** 2), 0.0)
        shared = both.sum(axis=1)
        alike = np.where(shared > 0, np.exp(-TAIL * apart.sum(axis=1) / np.maximum(shared, 1)), 0.0)
        alike[i] = 0.0
        for gap in np.flatnonzero(~mine):
            weight = alike * known[:, gap]
            if weight.sum() > 1e-9:
                whole[i, gap] = weight @ zeros[:, gap] / weight.sum()
    return whole


def _landmarks(rows: Floats, trust: Floats) -> tuple[int, ...]:
    """The regions after whose measurement the next two would most often find the nearest: chosen one after the other, tried on
    profiles as if each were a stranger."""
    count = rows.shape[1]
    if count <= LANDMARKS:
        return tuple(range(count))
    # those that are believed most, spread over the list
    believed = np.sort(np.argsort(-trust, kind="stable")[: max(TRIAL_PROFILES, len(rows) // 2)])
    trials = believed[np.linspace(0, len(believed) - 1, min(TRIAL_PROFILES, len(believed))).astype(int)]
    chosen: list[int] = []
    for _ in range(LANDMARKS):
        candidates = [c for c in range(count) if c not in chosen]
        chosen.append(max(candidates, key=lambda c: (_found(rows, trust, trials, [*chosen, c]), -c)))
    return tuple(chosen)


def _found(rows: Floats, trust: Floats, trials: NDArray[np.int_], landmarks: list[int]) -> float:
    found = 0.0
    for i in trials:
        others, believed = np.delete(rows, i, axis=0), np.delete(trust, i)
        evidence = {c: float(rows[i, c]) for c in landmarks}
        probes = _given(others, believed, evidence).next_probes(evidence, 2)
        nearest = rows[i].min()
        reached = min(float(rows[i, c]) for c in [*landmarks, *probes])
        # within 10 ms counts whole, what is farther a little less the farther it is
        found += 1.0 if reached <= nearest + 10.0 else 1.0 / (1.0 + (reached - nearest) / 10.0)
    return found
