"""What to believe of a caller's round trips before and after it has measured: per region a figure, where it comes from, how sure.

Pure. The cases, for each region; the first that applies:

1. ``history``    its own network has been seen there: the least of the last windows' values, and on top of it what all its regions
                  have been slower by than at their best
2. ``wider``      the same of its metro or autonomous system
3. ``alike``      networks that look like it, where anything is known of it (`profiles`)
4. ``geography``  100 km are 1.5 ms, and 10 ms for the last mile
5. ``prior``      a quarter farther than the farthest region that is known, and 150 ms at least: what did not answer is far

What the caller itself measured stands above all of it, as long as it is fresh: `app.placement.choice` lays it over, with a half-life
of a minute. Here it is evidence for the regions that were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.placement.profiles import NONE, Profiles
from app.placement.scenarios import Floats, Scenarios

PRIOR_RTT_MS = 150.0
FARTHER = 1.25
DRAWS = 128
USUAL_EXCESS_MS = (0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 80.0)
"""How much slower than at its best a region is from one hour to the next, where a network has not shown it by itself."""
CONFIDENCE = {"wider": 0.5, "alike": 0.4, "geography": 0.2, "prior": 0.0}
KM_PER_MS, LAST_MILE_MS = 100.0 / 1.5, 10.0
EARTH_KM = 6_371.0
_ORDERS = 64
_quantiles = np.stack(
    [(np.random.default_rng(i).permutation(512) + 0.5) / 512 for i in range(_ORDERS)], axis=1
)

Coordinates = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one caller. `measured`: its own fresh round trips in ms; `history` and `wider`: round trips by region, one
    for each window, newest first; `at`: latitude and longitude in degrees, roughly."""

    measured: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    wider: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    at: Coordinates | None = None

    @property
    def nothing(self) -> bool:
        return not (self.measured or self.history or self.wider or self.at)


@dataclass(frozen=True, slots=True)
class Prior:
    """One region: round trip and mean distance from it in ms; `confidence` from 0 to 1."""

    rtt_ms: float
    spread_ms: float
    source: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Belief:
    regions: tuple[str, ...]
    scenarios: Scenarios
    sources: tuple[str, ...]
    confidence: tuple[float, ...]
    measured: Mapping[int, float]

    def priors(self) -> dict[str, Prior]:
        mean = self.scenarios.mean()
        spread = self.scenarios.spread(mean)
        return {
            region: Prior(m, s, source, confidence)
            for region, m, s, source, confidence in zip(
                self.regions, mean.tolist(), spread.tolist(), self.sources, self.confidence, strict=True
            )
        }

    def next_probes(self, count: int, *, of: Sequence[str] | None = None) -> list[str]:
        """Which regions to measure next."""
        columns = [i for i, r in enumerate(self.regions) if of is None or r in of]
        return [self.regions[i] for i in self.scenarios.next_probes(self.measured, count, of=columns)]


def believe(
    regions: Sequence[str],
    known: Known,
    profiles: Profiles = NONE,
    distance_km: Callable[[str, Coordinates], float] | None = None,
) -> Belief:
    """`regions`: all there are, in any order. `distance_km`: from a region to coordinates."""
    columns = {region: i for i, region in enumerate(regions)}
    measured = {columns[r]: v for r, v in known.measured.items() if r in columns}
    rows, weight, sources = _base(regions, known, profiles, distance_km, measured, columns)
    confidence = [CONFIDENCE[s] for s in sources]
    seen = {**known.wider, **known.history}
    excess = _excess(seen.values())
    if seen and len(weight) != DRAWS:
        # what is drawn for a region with a history must not be weighed by what the others look like
        rows, weight = rows[_evenly(weight, DRAWS)], np.full(DRAWS, 1.0 / DRAWS)
    for region, values in seen.items():
        column = columns.get(region)
        if column is None or not values:
            continue
        own = region in known.history
        rows[:, column] = min(values) + _draws(excess, len(rows), column)
        sources[column] = "history" if own else "wider"
        confidence[column] = 1.0 - 0.5 ** (1 + len(values) / 2) if own else CONFIDENCE["wider"]
    for column, rtt_ms in measured.items():
        rows[:, column] = rtt_ms
    return Belief(tuple(regions), Scenarios(rows, weight), tuple(sources), tuple(confidence), measured)


def _base(
    regions: Sequence[str],
    known: Known,
    profiles: Profiles,
    distance_km: Callable[[str, Coordinates], float] | None,
    measured: Mapping[int, float],
    columns: Mapping[str, int],
) -> tuple[Floats, Floats, list[str]]:
    """Cases 3 to 5: rows to lay over what is known better."""
    evidence = {
        columns[region]: min(values)
        for histories in (known.wider, known.history)
        for region, values in histories.items()
        if region in columns and values
    }
    evidence.update(measured)
    if profiles.useful and profiles.regions == tuple(regions) and (evidence or known.at is None):
        scenarios = profiles.given(evidence)
        return scenarios.rtt_ms.copy(), scenarios.weight, ["alike" if evidence else "prior"] * len(regions)
    rows = np.empty((DRAWS, len(regions)))
    if known.at is not None and distance_km is not None:
        at = known.at
        rows[:] = [far_ms(distance_km(region, at)) for region in regions]
        source = "geography"
    else:
        rows[:] = max([PRIOR_RTT_MS, *(FARTHER * v for v in evidence.values())])
        source = "prior"
    return rows, np.full(DRAWS, 1.0 / DRAWS), [source] * len(regions)


def _excess(histories: Iterable[Sequence[float]]) -> Floats:
    """How much slower than at their best this network's regions have been, all of them together, in ascending order."""
    pool = list(USUAL_EXCESS_MS)
    for values in histories:
        if len(values) > 1:
            best = min(values)
            pool.extend(v - best for v in values)
    return np.sort(np.array(pool))


def _evenly(weight: Floats, count: int) -> NDArray[np.intp]:
    """Rows, each as often as its weight asks for (systematic resampling)."""
    return np.minimum(np.searchsorted(np.cumsum(weight), (np.arange(count) + 0.5) / count), len(weight) - 1)


def _draws(pool: Floats, count: int, column: int) -> Floats:
    """`count` values of the pool, each as often as the others, in an order of this column's own."""
    quantiles = np.resize(_quantiles[:, column % _ORDERS], count)
    drawn: Floats = pool[(quantiles * len(pool)).astype(int)]
    return drawn


def far_ms(km: float) -> float:
    """A round trip over so many kilometres as the crow flies."""
    return km / KM_PER_MS + LAST_MILE_MS


def kilometres(one: Coordinates, other: Coordinates) -> float:
    """Along a great circle (haversine)."""
    (lat, lon), (lat2, lon2) = ((math.radians(x), math.radians(y)) for x, y in (one, other))
    h = math.sin((lat2 - lat) / 2) ** 2 + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(h)))
