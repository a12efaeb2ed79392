"""Many seeds over a few processes: what broke, what was covered, how fast it went."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.ledger import Violation
from tests.simulation.plan import draw_plan
from tests.simulation.run import run

PROCESSES = 2
CHUNK = 20
COLLECT_EVERY = 10


@dataclass(slots=True)
class Batch:
    """`broken`: seed → what broke first."""

    seeds: int = 0
    steps: int = 0
    steps_min: int = 1 << 60
    faults_min: int = 1 << 60
    took_s: float = 0.0
    broken: dict[int, Violation] = field(default_factory=dict)
    covered: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Batch) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.steps_min = min(self.steps_min, other.steps_min)
        self.faults_min = min(self.faults_min, other.faults_min)
        self.broken |= other.broken
        self.covered += other.covered


def run_chunk(seeds: Iterable[int], mutation: str = "") -> Batch:
    """In this process."""
    batch = Batch()
    gc.disable()
    for seed in seeds:
        outcome = run(draw_plan(seed), mutation=mutation)
        batch.seeds += 1
        batch.steps += outcome.steps
        batch.covered += outcome.covered
        if outcome.violation is not None:
            batch.broken[seed] = outcome.violation
        else:
            batch.steps_min = min(batch.steps_min, outcome.steps)
            batch.faults_min = min(batch.faults_min, outcome.faults)
        if batch.seeds % COLLECT_EVERY == 0:
            gc.collect()
    gc.enable()
    return batch


def run_seeds(seeds: range, *, mutation: str = "", until_broken: bool = False) -> Iterator[Batch]:
    """The sum so far, after each chunk; ends early once something broke where that is all that is asked."""
    total = Batch()
    chunks = [range(i, min(i + CHUNK, seeds.stop)) for i in range(seeds.start, seeds.stop, CHUNK)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        # the processes are there before the clock runs
        for ready in [pool.submit(run_chunk, range(0)) for _ in range(PROCESSES)]:
            ready.result()
        began = time.monotonic()
        waiting = [pool.submit(run_chunk, chunk, mutation) for chunk in chunks]
        for future in waiting:
            total.add(future.result())
            total.took_s = time.monotonic() - began
            yield total
            if until_broken and total.broken:
                pool.shutdown(cancel_futures=True)
                return


def coverage_table(covered: Counter[tuple[str, str]]) -> str:
    """Fault by state of the call: how often the one struck while the other was."""
    states = ("before", "ringing", "attached", "suspicious", "taking", "moved", "ending", "over")
    kinds = sorted({kind for kind, _ in covered})
    lines = [f"{'':18}" + "".join(f"{state:>11}" for state in states)]
    lines += [
        f"{kind:18}" + "".join(f"{covered[(kind, state)] or '·':>11}" for state in states) for kind in kinds
    ]
    return "\n".join(lines)
