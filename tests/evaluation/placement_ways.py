"""The ways to place that are compared: ours, through the product's own cores, and those without them. Each says for every
caller and
slice which region it took and how many probes that cost.

Slices are time. What a caller measures is its round trip in the slice that is placed (with noise on it where the condition
says so), what is known of it are
earlier slices. Networks that a caller may be alike to
are those of the other folds: nobody is a reference for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import Distance, Known, believe, priors_of
from app.placement.choice import Measured, Placement, Wishes, choose
from app.placement.history import WINDOWS_KEPT, History
from app.placement.profiles import NONE, Profiles, profiles_of
from tests.evaluation.placement_world import Floats, Scene

Ints = NDArray[np.intp]
Recalled = dict[str, tuple[float, ...]]

NEAR_MS = 10.0
FOLDS = 4
WISHES = Wishes()
NOTHING = (np.nan,)
ROUNDS_SEEN, ROUNDS_UNSEEN = (2,), (2, 2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Each (slices that were placed, callers). `regret_ms`: above the best region in that slice."""

    regret_ms: Floats
    probes: Ints

    @property
    def near(self) -> Floats:
        return (self.regret_ms <= NEAR_MS).astype(float)

    @property
    def share(self) -> float:
        return float(self.near.mean())

    def of(self, callers: Ints) -> Outcome:
        return Outcome(self.regret_ms[:, callers], self.probes[:, callers])


@dataclass(slots=True)
class Sight:
    """What may be known in a scene. `probed_ms`: what a probe says, (slices, callers, regions). `told_ms`: what the history is
    told of each slice, NaN where nothing. `stale`: the newest so many slices are not told yet. `kept`: the history is the product's
    `History`, which keeps eight regions of each network, and all of those that profiles are made of; otherwise all of them.
    `seed`: decides who is in which fold."""

    scene: Scene
    probed_ms: Floats
    told_ms: Floats
    stale: int = 0
    kept: bool = False
    seed: int = 0
    folds: list[Ints] = field(init=False)
    _recalled: dict[int, list[Recalled]] = field(default_factory=dict)
    _profiles: dict[tuple[int, int], Profiles] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = np.random.default_rng(self.seed).permutation(self.scene.callers)
        self.folds = [np.sort(order[i::FOLDS]) for i in range(FOLDS)]

    @property
    def first(self) -> int:
        """The first slice of which something earlier is known."""
        return 1 + self.stale

    @property
    def placed(self) -> range:
        """The slices that are placed."""
        return range(self.first, self.scene.slices)

    def recalled(self, s: int) -> list[Recalled]:
        """Of each caller, what its network's history is when slice `s` is placed."""
        if s not in self._recalled:
            told = self.told_ms[: s - self.stale]
            make = _through_history if self.kept else _all_of_it
            self._recalled[s] = make(self.scene.regions, told)
        return self._recalled[s]

    def _whole(self, s: int) -> list[Recalled]:
        """Of each caller, what profiles are made of."""
        return (
            _all_of_it(self.scene.regions, self.told_ms[: s - self.stale]) if self.kept else self.recalled(s)
        )

    def profiles(self, s: int, fold: int) -> Profiles:
        """Those of everybody who is not in that fold."""
        if (s, fold) not in self._profiles:
            recalled = self._whole(s)
            others = np.setdiff1d(np.arange(self.scene.callers), self.folds[fold]).tolist()
            rows = np.array([[min(recalled[c].get(r, NOTHING)) for r in self.scene.regions] for c in others])
            self._profiles[s, fold] = profiles_of(self.scene.regions, rows)
        return self._profiles[s, fold]


def _all_of_it(regions: tuple[str, ...], told_ms: Floats) -> list[Recalled]:
    newest_first = told_ms[::-1][:WINDOWS_KEPT].transpose(1, 2, 0)
    if np.isfinite(newest_first).all():
        return [dict(zip(regions, map(tuple, of_caller), strict=True)) for of_caller in newest_first.tolist()]
    return [
        {
            r: known
            for r, values in zip(regions, of_caller, strict=True)
            if (known := tuple(v for v in values if v == v))
        }
        for of_caller in newest_first.tolist()
    ]


def _through_history(regions: tuple[str, ...], told_ms: Floats) -> list[Recalled]:
    history = History()
    for window, caller, column in np.argwhere(np.isfinite(told_ms)).tolist():
        history.learn(caller, regions[column], window, float(told_ms[window, caller, column]))
    return [history.recall(caller, len(told_ms)) for caller in range(told_ms.shape[1])]


def clear(scene: Scene) -> Sight:
    return Sight(scene, scene.rtt_ms, scene.rtt_ms)


def chosen(
    regions: tuple[str, ...], known: Known, profiles: Profiles, distance_km: Distance | None = None
) -> int:
    """The region that a caller gets of whom this is known, by column: the product's own choice, on a fleet without load."""
    priors = priors_of(regions, known, profiles, distance_km)
    measured = {r: Measured(rtt_ms=v) for r, v in known.measured.items()}
    placed = choose(idle_fleet(regions), measured, WISHES, draw=0.0, priors=priors)
    assert isinstance(placed, Placement)
    return regions.index(placed.region)


@cache
def idle_fleet(regions: tuple[str, ...]) -> Fleet:
    states = {
        r: RegionState(id=r, jurisdiction="xx", admin_state="active", health="healthy") for r in regions
    }
    edges = tuple(
        EdgeState(
            id=UUID(int=i + 1), region=r, name=r, incarnation=UUID(int=1), media_url="", http_url="", capacity_calls=100,
            calls=0, health="healthy",
        )
        for i, r in enumerate(regions)
    )  # fmt: skip
    return Fleet(regions=states, edges=edges)


def ours(sight: Sight, rounds: Sequence[int], *, seen: bool) -> Outcome:
    """`rounds`: how many regions are measured in each; `seen`: the caller's own history counts."""
    scene = sight.scene
    taken = np.zeros((len(sight.placed), scene.callers), dtype=np.intp)
    probes = np.zeros_like(taken)
    for i, s in enumerate(sight.placed):
        recalled = sight.recalled(s)
        for fold, callers in enumerate(sight.folds):
            profiles = sight.profiles(s, fold)
            for caller in callers.tolist():
                history = recalled[caller] if seen else {}
                taken[i, caller], probes[i, caller], _ = one(
                    scene.regions, history, profiles, sight.probed_ms[s, caller], rounds
                )
    return _outcome(sight, taken, probes)


def one(
    regions: tuple[str, ...],
    recalled: Recalled,
    profiles: Profiles,
    probed_ms: Floats,
    rounds: Sequence[int],
) -> tuple[int, int, dict[str, float]]:
    """(column of the region taken, how many were probed, what the probes said)."""
    measured: dict[str, float] = {}
    for count in rounds:
        if recalled or measured:
            probe = believe(regions, Known(measured=measured, history=recalled), profiles).next_probes(count)
        else:
            probe = [regions[c] for c in profiles.landmarks[:count]]
        measured.update((r, float(probed_ms[regions.index(r)])) for r in probe)
    return chosen(regions, Known(measured=measured, history=recalled), profiles), len(measured), measured


def pings_only(sight: Sight, count: int, *, seen: bool) -> Outcome:
    """Measures the regions of least mean history (at random where there is none) and takes the least. `count` 0: the
    least mean."""
    scene = sight.scene
    chance = np.random.default_rng(sight.seed + 1)
    taken = np.zeros((len(sight.placed), scene.callers), dtype=np.intp)
    for i, s in enumerate(sight.placed):
        order = chance.random((scene.callers, len(scene.regions)))
        if seen:
            order = _mean(sight.told_ms[: s - sight.stale], order)
        probe = np.argsort(order, axis=1)[:, : max(count, 1)]
        if count:
            said = np.take_along_axis(sight.probed_ms[s], probe, axis=1)
            probe = np.take_along_axis(probe, said.argmin(axis=1)[:, None], axis=1)
        taken[i] = probe[:, 0]
    return _outcome(sight, taken, np.full_like(taken, count))


def _mean(told_ms: Floats, order: Floats) -> Floats:
    """Mean of what was told; what was never told comes last, in random order."""
    told = np.isfinite(told_ms)
    sums = np.where(told, told_ms, 0.0).sum(axis=0)
    return np.where(told.any(axis=0), sums / np.maximum(told.sum(axis=0), 1), 1e9 + order)


def geography(sight: Sight) -> Outcome | None:
    """The nearest as the crow flies, through the product's own last resort; None where no coordinates are known."""
    scene = sight.scene
    km = scene.kilometres
    if km is None:
        return None
    column = {r: i for i, r in enumerate(scene.regions)}
    nearest = [
        chosen(scene.regions, Known(at=(0.0, 0.0)), NONE, lambda r, _, c=c: float(km[c, column[r]]))
        for c in range(scene.callers)
    ]
    taken = np.tile(np.array(nearest, dtype=np.intp), (len(sight.placed), 1))
    return _outcome(sight, taken, np.zeros_like(taken))


def at_random(sight: Sight) -> Outcome:
    shape = (len(sight.placed), sight.scene.callers)
    taken = np.random.default_rng(sight.seed + 2).integers(len(sight.scene.regions), size=shape)
    return _outcome(sight, taken, np.zeros_like(taken))


def _outcome(sight: Sight, taken: Ints, probes: Ints) -> Outcome:
    rtt_ms = sight.scene.rtt_ms[sight.first :]
    got = np.take_along_axis(rtt_ms, taken[:, :, None], axis=2)[:, :, 0]
    return Outcome(got - rtt_ms.min(axis=2), probes)
