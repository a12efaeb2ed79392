"""The gap that a caller hears when its region falls silent: everything in it is stopped with SIGSTOP, and no socket closes.

The gap is that of `failover`: from the last frame of the old edge to the first of the new backend's. Part of that family.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from app.local.deployment import Deployment
from tests.bench.report import Figure
from tests.bench.support import deployed
from tests.bench.tone import DEADLINE_S, RATE_HZ, gap_ms, moment, speaking, tone_backend
from voxplane import AsyncCaller, AsyncClient

RUNS = 12
REGIONS = 3
RECOVERED_WITHIN_S = 120.0


async def measure(*, full: bool) -> list[Figure]:
    runs = RUNS * (10 if full else 1)
    async with deployed(regions=REGIONS) as deployment, tone_backend() as url:
        _, key = await deployment.create_project("bench")
        async with AsyncClient(deployment.api_urls, key) as client:
            gaps_ms = [await one(deployment, client, url, i) for i in range(runs)]
    how = f"{runs} times edge and Valkey of a region stopped, three regions on loopback"
    return [
        Figure(family="failover", name="failover.silent_region_p50_ms", value=statistics.median(gaps_ms), unit="ms", how=how,
               target=900.0, at_most=True),
        Figure(family="failover", name="failover.silent_region_max_ms", value=max(gaps_ms), unit="ms", how=how,
               target=1_500.0, at_most=True),
    ]  # fmt: skip


async def one(deployment: Deployment, client: AsyncClient, url: str, number: int) -> float:
    """A call, a silence, the gap in milliseconds; the region goes on afterwards, and takes calls again."""
    victim = list(deployment.regions)[number % REGIONS]
    await trusted(deployment, victim)
    call = await client.create_call(url, regions={"pin": victim})
    async with (
        AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
        asyncio.timeout(DEADLINE_S),
        speaking(caller),
    ):
        await moment(caller, number)
        assert caller.region == victim
        with stopped(deployment, victim):
            gap = await gap_ms(caller)
        await caller.hangup()
    return gap


@contextmanager
def stopped(deployment: Deployment, region: str) -> Iterator[None]:
    """Its processes, by pid; they go on however this ends."""
    up = deployment.regions[region]
    pids = [up.edge.pid] + ([up.valkey.pid] if up.valkey is not None else [])
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def trusted(deployment: Deployment, region: str) -> None:
    """It is held for healthy: what it has gone through before is over."""
    async with deployment.operator() as operator, asyncio.timeout(RECOVERED_WITHIN_S):
        while True:
            found = (await operator.get("/admin/v1/regions")).json()["data"]
            if next(r for r in found if r["id"] == region)["health"] in ("healthy", "probation"):
                return
            await asyncio.sleep(0.05)
