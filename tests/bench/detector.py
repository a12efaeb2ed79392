"""False alarms in a simulated day, and how long a death goes unseen. In virtual time: the detector alone is real.

Three edges in three regions. Every heartbeat and every probe is lost with 2 %, heartbeats are up to 100 ms late, and each edge stalls
for 1.5 s about once a minute: it sends nothing and answers nobody.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor

from tests.bench.report import Figure
from tests.bench.support import quantile
from tests.support.fleet_day import detection_s, false_downs

HOURS = 24
DEATHS = 200
PROCESSES = 2


async def measure(*, full: bool) -> list[Figure]:
    """In processes of their own; this one only waits."""
    return await asyncio.to_thread(_run, 7 if full else 1)


def _run(days: int) -> list[Figure]:
    with ProcessPoolExecutor(PROCESSES) as pool:
        downs = sum(pool.map(_hour, range(HOURS * days)))
        silent = list(pool.map(_silent, range(DEATHS * days), chunksize=10))
        killed = list(pool.map(_killed, range(DEATHS * days), chunksize=10))
    network = "2 % loss, 100 ms jitter, 1.5 s stalls"
    how = f"{len(silent)} machines that fall silent; {network}"
    return [
        Figure(family="detector", name="detector.false_downs_per_day", value=downs / days, unit="a day", target=0, at_most=True,
               how=f"{days} simulated day(s) of 3 edges; {network}"),
        Figure(family="detector", name="detector.detect_p50_ms", value=quantile([d for _, d in silent], 0.5) * 1000, unit="ms",
               how=how),
        Figure(family="detector", name="detector.detect_p99_ms", value=quantile([d for _, d in silent], 0.99) * 1000, unit="ms",
               target=5_500, at_most=True, how=how),
        Figure(family="detector", name="detector.suspect_p99_ms", value=quantile([s for s, _ in silent], 0.99) * 1000, unit="ms",
               how="until new calls stay away"),
        Figure(family="detector", name="detector.killed_p99_ms", value=quantile([d for _, d in killed], 0.99) * 1000, unit="ms",
               how=f"{len(killed)} processes that die, and whose ports refuse"),
    ]  # fmt: skip


def _hour(n: int) -> int:
    return false_downs(n, 1.0, per_region=1)


def _silent(n: int) -> tuple[float, float]:
    return detection_s(n, "silent", per_region=1)


def _killed(n: int) -> tuple[float, float]:
    return detection_s(n, "killed", per_region=1)
