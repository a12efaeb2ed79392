"""Round trips to evaluate on: a file of measured ones, or a small world made from a seed; and which nodes of it are regions.

Array of a file: ``rtt_ms``, shape (slices, nodes, nodes), ms; 0, NaN and infinite off the diagonal count as not measured and
take the
pair's median over the slices, or where there is none the median of all. The rule for the regions is greedy k-medians: one
after the other
the node that lowers the sum of the callers' distances to their nearest region most, on the matrix of the medians over the slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from app.placement.belief import KM_PER_MS, kilometres

Floats = NDArray[np.float64]

REGIONS = (5, 12, 30)
CALLERS_MIN = 20
LEAST_MS = 0.1
INFLATION = (1.2, 0.35)
CITIES = 14


@dataclass(frozen=True, slots=True)
class World:
    """`rtt_ms`: (slices, nodes, nodes). `at`: latitude and longitude of each node in degrees, where they are known."""

    name: str
    rtt_ms: Floats
    at: Floats | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A world with its regions chosen. `rtt_ms`: (slices, callers, regions). `kilometres`: (callers, regions), where known."""

    world: str
    regions: tuple[str, ...]
    rtt_ms: Floats
    kilometres: Floats | None = None

    @property
    def slices(self) -> int:
        return int(self.rtt_ms.shape[0])

    @property
    def callers(self) -> int:
        return int(self.rtt_ms.shape[1])


def load(path: Path) -> World:
    """Raises `OSError`, or `ValueError` for what is no such array, or one in which too little was measured."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "rtt_ms" not in arrays:
                raise ValueError(f"{path} has no array rtt_ms")
            rtt_ms = arrays["rtt_ms"].astype(np.float64)
    except BadZipFile as error:
        raise ValueError(f"{path} is no whole .npz file: {error}") from None
    if rtt_ms.ndim != 3 or rtt_ms.shape[1] != rtt_ms.shape[2] or rtt_ms.shape[0] < 2:
        raise ValueError(
            f"{path}: rtt_ms has shape {rtt_ms.shape}, not (slices, nodes, nodes) with two slices or more"
        )
    if not fits(rtt_ms.shape[1], min(REGIONS)):
        raise ValueError(
            f"{path} has {rtt_ms.shape[1]} nodes: fewer than {min(REGIONS)} regions and {CALLERS_MIN} callers"
        )
    if not (np.isfinite(rtt_ms) & (rtt_ms > 0)).any():
        raise ValueError(f"{path}: nothing was measured")
    return World(path.stem, _whole(rtt_ms))


def fits(nodes: int, k: int) -> bool:
    """k regions leave enough callers to say anything of."""
    return nodes >= k + CALLERS_MIN


def _whole(rtt_ms: Floats) -> Floats:
    nodes = rtt_ms.shape[1]
    good = np.isfinite(rtt_ms) & (rtt_ms > 0)
    itself = np.eye(nodes, dtype=bool)
    if (good | itself).all():
        return rtt_ms
    gaps = np.where(good & ~itself, rtt_ms, np.nan)
    median = np.full((nodes, nodes), np.nanmedian(gaps))
    np.fill_diagonal(median, 0.0)
    some = (good & ~itself).any(axis=0)
    median[some] = np.nanmedian(gaps[:, some], axis=0)
    return np.where(good, rtt_ms, median)


def synthetic(nodes: int = 300, slices: int = 6, seed: int = 1) -> World:
    """Nodes around cities on a sphere. A path is longer than the great circle by a factor of its own for each pair of
    cities (and a little
    for each pair of nodes), has an access delay at both ends, and is slower in some slices than in others."""
    chance = np.random.default_rng(seed)
    city_at = np.stack(
        [np.degrees(np.arcsin(chance.uniform(-0.6, 0.85, CITIES))), chance.uniform(-180, 180, CITIES)], axis=1
    )
    city = chance.choice(CITIES, nodes, p=chance.dirichlet(np.full(CITIES, 2.0)))
    at = np.clip(city_at[city] + chance.normal(0, 3.0, (nodes, 2)), [-89, -180], [89, 180])
    km = between(at, at)
    detour = INFLATION[0] + chance.gamma(2.0, INFLATION[1] / 2, (CITIES, CITIES))
    detour = np.maximum(detour, detour.T)[np.ix_(city, city)] * chance.lognormal(0, 0.05, (nodes, nodes))
    access = chance.lognormal(np.log(2.0), 0.8, nodes)
    still = km / KM_PER_MS * detour + access[:, None] + access[None, :]
    still = (still + still.T) / 2
    rtt_ms = np.empty((slices, nodes, nodes))
    for s in range(slices):
        busy = chance.exponential(1.0, (nodes, nodes)) + 40.0 * (chance.random((nodes, nodes)) < 0.02)
        rtt_ms[s] = still + (busy + busy.T) / 2
        np.fill_diagonal(rtt_ms[s], 0.0)
    return World(f"synthetic, seed {seed}", rtt_ms, at)


def scene(world: World, k: int) -> Scene:
    """k regions; every other node is a caller."""
    median = np.median(world.rtt_ms, axis=0)
    chosen = k_medians(median, k)
    callers = np.setdiff1d(np.arange(len(median)), chosen)
    rtt_ms = np.maximum(world.rtt_ms[:, callers][:, :, chosen], LEAST_MS)
    km = None if world.at is None else between(world.at[callers], world.at[chosen])
    return Scene(world.name, tuple(f"r{i:02}" for i in range(k)), rtt_ms, km)


def k_medians(distance: Floats, k: int) -> list[int]:
    """Greedy: a node is not counted among those that are to be near it."""
    nearest = np.full(len(distance), distance.max() * 2)
    chosen: list[int] = []
    for _ in range(k):
        sums = np.minimum(nearest[:, None], distance).sum(axis=0)
        sums[chosen] = np.inf
        chosen.append(int(sums.argmin()))
        nearest = np.minimum(nearest, distance[:, chosen[-1]])
    return chosen


def between(ones: Floats, others: Floats) -> Floats:
    """Kilometres along great circles: one row for each of `ones`."""
    return np.array([[kilometres((a, b), (c, d)) for c, d in others] for a, b in ones])
