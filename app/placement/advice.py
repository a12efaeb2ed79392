"""Which regions a caller should measure next: as few as find the nearest, in at most two rounds. Pure.

The cases, in this order:

1. nothing can be measured, or `PROBES_MAX` regions are           → none
2. there are no more than `ALL` regions to measure                → all of them, in one round
3. the network has been seen before                               → the two that most likely hold the nearest; then none
4. it has not, and other networks are known well (`profiles`)     → two landmarks; then the two that, by what came back, most likely
                                                                    hold the nearest
5. it has not, nor are others, and it is known where it is        → the four nearest on the map
6. else                                                           → all of them, `UNKNOWN_MAX` at most
"""

from __future__ import annotations

from collections.abc import Sequence

from app.placement.belief import Distance, Known, believe, priors_of
from app.placement.profiles import Profiles

PROBES_MAX = 4
PER_ROUND = 2
ALL = 4
UNKNOWN_MAX = 16


def next_probes(
    regions: Sequence[str],
    open_to: Sequence[str],
    known: Known,
    profiles: Profiles,
    distance_km: Distance | None = None,
) -> list[str]:
    """`regions`: all, in the profiles' order; `open_to`: those that can be measured and would be chosen. The best come first."""
    left = [r for r in open_to if r not in known.measured]
    if not left or len(known.measured) >= PROBES_MAX:
        return []
    if len(open_to) <= ALL:
        return left
    seen = any(r in open_to for r in known.history)
    if seen and known.measured:
        return []
    informed = profiles.useful and profiles.regions == tuple(regions)
    if seen or (informed and (known.measured or known.wider)):
        return believe(regions, known, profiles, distance_km).next_probes(PER_ROUND, of=left)
    if informed:
        landmarks = [regions[i] for i in profiles.landmarks if regions[i] in left]
        return landmarks or believe(regions, known, profiles, distance_km).next_probes(PER_ROUND, of=left)
    if known.measured:
        return []
    if known.at is not None and distance_km is not None:
        priors = priors_of(regions, known, profiles, distance_km)
        return sorted(left, key=lambda r: (priors[r].rtt_ms, r))[:PROBES_MAX]
    return left[:UNKNOWN_MAX]
