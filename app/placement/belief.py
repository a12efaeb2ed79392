"""What to believe of a caller's round trips before and after it has measured: per region a figure, where it comes from, how sure.

Pure. The cases, for each region; the first that applies:

1. ``history``    its own network has been seen there: the least of the last windows' values, and on top of it what all its regions
                  have been slower by than at their best
2. ``wider``      the same of its metro or autonomous system
3. ``alike``      networks that look like it, where anything is known of it (`profiles`)
   A network of which as many regions are known as are kept has no nearer ones: the others are no nearer than the farthest of those
4. ``geography``  100 km are 1.5 ms, and 10 ms for the last mile
5. ``prior``      a quarter farther than the farthest region that is known, and 150 ms at least: what did not answer is far

What the caller itself measured stands above all of it, as long as it is fresh: `app.placement.choice` lays it over, with a half-life
of a minute. Here it is evidence for the regions that were not measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.placement.history import REGIONS_KEPT
from app.placement.profiles import NONE, Profiles
from app.placement.scenarios import Floats, Scenarios

PRIOR_RTT_MS = 150.0
FARTHER = 1.25
DRAWS = 128
SEEN_WELL = 5
"""A network that is known at so many regions is placed by what is known, and what is not is far: it was measured where it may be
near."""
DOUBT = 0.3
"""How likely the one hour in which a region was seen was a bad one; both of two, its square. Then it is as near as it is for networks
that are alike, where that is nearer: it is measured again, and not given up for one bad hour."""
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


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one caller. `measured`: its own fresh round trips in ms; `history` and `wider`: round trips by region, one
    for each window, newest first; `at`: latitude and longitude in degrees, roughly."""

    measured: Mapping[str, float] = msgspec.field(default_factory=dict)
    history: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    wider: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    at: Coordinates | None = None

    @property
    def nothing(self) -> bool:
        return not (self.measured or self.history or self.wider or self.at)


class Prior(msgspec.Struct, frozen=True, gc=False):
    """One region: round trip in ms; `confidence` from 0 to 1."""

    rtt_ms: float
    source: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Belief:
    """What there is to advise from. `measured`: column and ms."""

    regions: tuple[str, ...]
    scenarios: Scenarios
    measured: Mapping[int, float]

    def next_probes(self, count: int, *, of: Iterable[str] | None = None) -> list[str]:
        """Which regions (of those in `of`) to measure next."""
        open_to = None if of is None else frozenset(of)
        columns = [i for i, r in enumerate(self.regions) if open_to is None or r in open_to]
        return [self.regions[i] for i in self.scenarios.next_probes(self.measured, count, of=columns)]


Distance = Callable[[str, Coordinates], float]
"""Kilometres from a region to a place."""


def priors_of(
    regions: Sequence[str], known: Known, profiles: Profiles = NONE, distance_km: Distance | None = None
) -> dict[str, Prior]:
    """The means of `believe`, for every region; quick enough for the path of a request."""
    evidence = _evidence(regions, known)
    if len(known.history) >= SEEN_WELL:
        means, source = _far(regions, evidence), "prior"
    elif _by_profiles(regions, known, profiles, evidence):
        source = "alike" if evidence else "prior"
        means = profiles.expected(evidence).tolist()
    else:
        means, source = _far_or_near(regions, known, distance_km, evidence)
    confidence = CONFIDENCE[source]
    found = {r: Prior(m, source, confidence) for r, m in zip(regions, means, strict=True)}
    seen = {**known.wider, **known.history}
    if seen:
        pool = _excess(seen.values())
        excess_ms = sum(pool) / len(pool)
        for region, values in seen.items():
            if region in found and values:
                own = region in known.history
                found[region] = Prior(
                    min(values) + excess_ms,
                    "history" if own else "wider",
                    1.0 - 0.5 ** (1 + len(values) / 2) if own else CONFIDENCE["wider"],
                )
    return found


def believe(
    regions: Sequence[str], known: Known, profiles: Profiles = NONE, distance_km: Distance | None = None
) -> Belief:
    """`regions`: all there are, in any order. For advice on what to measure: costs about a millisecond."""
    columns = {region: i for i, region in enumerate(regions)}
    evidence = _evidence(regions, known)
    alike = _by_profiles(regions, known, profiles, evidence)
    if alike:
        scenarios = profiles.given(evidence)
        guessed, weight = scenarios.rtt_ms, scenarios.weight
    else:
        means, _ = _far_or_near(regions, known, distance_km, evidence)
        guessed, weight = np.tile(np.array(means), (DRAWS, 1)), np.full(DRAWS, 1.0 / DRAWS)
    seen = {r: v for r, v in {**known.wider, **known.history}.items() if r in columns and v}
    if seen and len(weight) != DRAWS:
        # what is drawn for a region with a history must not be weighed by what the others look like
        guessed, weight = guessed[_evenly(weight, DRAWS)], np.full(DRAWS, 1.0 / DRAWS)
    rows = guessed.copy()
    if len(known.history) >= REGIONS_KEPT:
        rows = np.maximum(rows, max(min(v) for v in known.history.values()))
    if seen:
        pool = np.sort(np.array(_excess(seen.values())))
        for region, values in seen.items():
            column = columns[region]
            told = min(values) + _draws(pool, len(rows), column)
            if alike:
                doubted = _ordered(len(rows), column + _ORDERS // 2) < DOUBT ** len(values)
                told = np.where(doubted, np.minimum(told, guessed[:, column]), told)
            rows[:, column] = told
    measured = {columns[r]: v for r, v in known.measured.items() if r in columns}
    for column, rtt_ms in measured.items():
        rows[:, column] = rtt_ms
    return Belief(tuple(regions), Scenarios(rows, weight), measured)


def _evidence(regions: Sequence[str], known: Known) -> dict[int, float]:
    """Column and ms of all that was seen, the best word for each region."""
    best = {r: min(v) for histories in (known.wider, known.history) for r, v in histories.items() if v}
    best.update(known.measured)
    return {i: best[r] for i, r in enumerate(regions) if r in best} if best else {}


def _by_profiles(
    regions: Sequence[str], known: Known, profiles: Profiles, evidence: Mapping[int, float]
) -> bool:
    return profiles.useful and profiles.regions == tuple(regions) and bool(evidence or known.at is None)


def _far_or_near(
    regions: Sequence[str], known: Known, distance_km: Distance | None, evidence: Mapping[int, float]
) -> tuple[list[float], str]:
    """Cases 4 and 5."""
    if known.at is not None and distance_km is not None:
        at = known.at
        return [far_ms(distance_km(region, at)) for region in regions], "geography"
    return _far(regions, evidence), "prior"


def _far(regions: Sequence[str], evidence: Mapping[int, float]) -> list[float]:
    return [max([PRIOR_RTT_MS, *(FARTHER * v for v in evidence.values())])] * len(regions)


def _excess(histories: Iterable[Sequence[float]]) -> list[float]:
    """How much slower than at their best this network's regions have been, all of them together."""
    pool = list(USUAL_EXCESS_MS)
    for values in histories:
        if len(values) > 1:
            best = min(values)
            pool += [v - best for v in values]
    return pool


def _evenly(weight: Floats, count: int) -> NDArray[np.intp]:
    """Rows, each as often as its weight asks for (systematic resampling)."""
    return np.minimum(np.searchsorted(np.cumsum(weight), (np.arange(count) + 0.5) / count), len(weight) - 1)


def _draws(pool: Floats, count: int, column: int) -> Floats:
    """`count` values of the pool, each as often as the others, in an order of this column's own."""
    drawn: Floats = pool[(_ordered(count, column) * len(pool)).astype(int)]
    return drawn


def _ordered(count: int, column: int) -> Floats:
    """Quantiles, in an order of this column's own."""
    return np.resize(_quantiles[:, column % _ORDERS], count)


def far_ms(km: float) -> float:
    """A round trip over so many kilometres as the crow flies."""
    return km / KM_PER_MS + LAST_MILE_MS


def kilometres(one: Coordinates, other: Coordinates) -> float:
    """Along a great circle (haversine)."""
    (lat, lon), (lat2, lon2) = ((math.radians(x), math.radians(y)) for x, y in (one, other))
    h = math.sin((lat2 - lat) / 2) ** 2 + math.cos(lat) * math.cos(lat2) * math.sin((lon2 - lon) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(h)))
