"""Processor time of one decision over 50 regions with 20 edges each, and what a million networks weigh in memory.

A decision is what a create makes of what is in memory: what is believed of the caller, and the choice with its reasons. Nothing is
read from a database. The weight is a process's own: how much more is resident after the history was filled.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import numpy as np

from app.fleet.view import EdgeState, Fleet, RegionState
from app.placement.belief import Known, priors_of
from app.placement.choice import Measured, Wishes, choose
from app.placement.history import History
from app.placement.policy import policy_of
from app.placement.profiles import PROFILES_MAX, profiles_of
from tests.bench.report import Figure
from tests.bench.support import quantile

REGIONS, EDGES = 50, 20
DECISIONS = 5_000
NETWORKS, KNOWN_REGIONS, WINDOWS = 1_000_000, 8, 5
TAUGHT = 1_000


async def measure(*, full: bool) -> list[Figure]:
    return await asyncio.to_thread(_measure, DECISIONS * (4 if full else 1))


def _measure(decisions: int) -> list[Figure]:
    figures = []
    for name, how in (
        ("history", "callers with a history of 8 regions"),
        ("little", "callers with a history of 4 regions who have measured 4 others"),
        ("measured", "callers who have measured 4 regions"),
        ("nothing", "callers of whom nothing is known"),
    ):
        taken = decision_us(name, decisions)
        figures.append(
            Figure(family="placement", name=f"placement.decision_{name}_p99_us", value=quantile(taken, 0.99), unit="µs",
                   how=f"{how}; p50 {quantile(taken, 0.5):.0f}")
        )  # fmt: skip
    worst = max(f.value for f in figures)
    figures.insert(
        0,
        Figure(family="placement", name="placement.decision_p99_us", value=worst, unit="µs", target=300, at_most=True,
               how=f"CPU, the worst of the four below; {REGIONS} regions × {EDGES} edges, {decisions} decisions each"),
    )  # fmt: skip
    weighed = subprocess.run(
        [sys.executable, "-m", "tests.bench.placement"], check=True, capture_output=True, text=True
    )
    figures.append(
        Figure(family="placement", name="placement.memory_mb_1m_networks", value=float(weighed.stdout), unit="MB", target=300,
               at_most=True, how=f"resident, {NETWORKS:,} networks × {KNOWN_REGIONS} regions × {WINDOWS} windows")
    )  # fmt: skip
    return figures


def decision_us(kind: str, count: int) -> list[float]:
    chance = random.Random(1)
    regions = tuple(f"region-{i:02}" for i in range(REGIONS))
    rows = np.random.default_rng(1).uniform(5, 300, (PROFILES_MAX, REGIONS))
    profiles, fleet = profiles_of(regions, rows), _fleet(regions, chance)
    callers = []
    for _ in range(200):
        measured: dict[str, Measured] = {}
        mixed = chance.sample(regions, KNOWN_REGIONS)
        seen = {"history": mixed, "little": mixed[:4]}.get(kind, [])
        known = {r: tuple(chance.uniform(5, 300) for _ in range(WINDOWS)) for r in seen}
        if kind in ("measured", "little"):
            measured = {r: Measured(rtt_ms=chance.uniform(5, 300)) for r in mixed[-4:]}
        callers.append((Known(history=known, measured={r: m.rtt_ms for r, m in measured.items()}), measured))
    taken, policy = [], policy_of(fleet.regions)
    gc.collect()
    for n in range(count):
        known_of, measured = callers[n % len(callers)]
        draw = chance.random()
        began = time.thread_time_ns()
        priors = priors_of(regions, known_of, profiles)
        choose(fleet, measured, Wishes(), draw=draw, priors=priors, policy=policy)
        taken.append((time.thread_time_ns() - began) / 1_000)
    return taken


def _fleet(regions: tuple[str, ...], chance: random.Random) -> Fleet:
    states = {
        r: RegionState(id=r, jurisdiction="xx", admin_state="active", health="healthy") for r in regions
    }
    edges = tuple(
        EdgeState(
            id=UUID(int=1 + i * EDGES + n), region=r, name=f"{r}-{n}", incarnation=UUID(int=1), media_url="", http_url="",
            capacity_calls=200, calls=chance.randrange(150), health="healthy",
        )
        for i, r in enumerate(regions)
        for n in range(EDGES)
    )  # fmt: skip
    return Fleet(regions=states, edges=edges)


def resident_mb() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def history_mb() -> float:
    """The first networks learn value by value; the others are put beside them as rows of their own of the same size: forty million
    values would take minutes to learn and weigh the same."""
    gc.collect()
    before, history = resident_mb(), History()
    for network in range(TAUGHT):
        for region in range(KNOWN_REGIONS):
            for window in range(WINDOWS):
                history.learn(network, f"region-{region:02}", window, 20.0 + network % 97)
    rows = history._networks
    for network in range(TAUGHT, NETWORKS):
        rows[(1 << 60) | network] = bytes(bytearray(rows[network % TAUGHT]))
    gc.collect()
    assert (
        len(history) == NETWORKS and len(history.recall((1 << 60) | (NETWORKS - 1), WINDOWS)) == KNOWN_REGIONS
    )
    return resident_mb() - before


if __name__ == "__main__":
    print(history_mb())
