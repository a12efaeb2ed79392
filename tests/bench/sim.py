"""How many seeds of the deterministic simulation a minute takes, on two cores. A seed is at least 500 steps and 3 faults."""

from __future__ import annotations

import asyncio

from tests.bench.report import Figure
from tests.simulation.batch import PROCESSES, Batch, run_seeds

SEEDS = 500


async def measure(*, full: bool) -> list[Figure]:
    """In processes of their own; this one only waits."""
    batch = await asyncio.to_thread(_run, SEEDS * (10 if full else 1))
    if batch.broken:
        raise AssertionError(f"seeds {sorted(batch.broken)[:5]} broke an invariant: make sim")
    how = f"{batch.seeds} seeds over {PROCESSES} processes, {batch.steps / batch.seeds:,.0f} steps each"
    return [
        Figure(
            family="sim", name="sim.seeds_per_min", value=batch.seeds / batch.took_s * 60, unit="seeds/min", how=how, target=1_000
        ),
        Figure(
            family="sim", name="sim.steps_per_s", value=batch.steps / batch.took_s, unit="steps/s",
            how=f"at least {batch.steps_min} steps and {batch.faults_min} faults in each",
        ),
    ]  # fmt: skip


def _run(seeds: int) -> Batch:
    *_, batch = run_seeds(range(1, seeds + 1))
    return batch
