"""The gap that a caller hears when the edge that carries the call is killed with SIGKILL.

From the last frame of the old edge to the first frame of the *new backend's* audio: the backend plays a continuous tone on
every socket it is given, and the edge adds no filler of its own. Two regions on loopback, no distance emulated: what is
measured is what the software adds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics

from app.local.deployment import Deployment
from tests.bench import crash, elsewhere, replacing, silent
from tests.bench.drain import measure_drains
from tests.bench.report import Figure
from tests.bench.support import deployed, quantile
from tests.bench.tone import DEADLINE_S, RATE_HZ, gap_ms, healthy, moment, speaking, tone_backend
from voxplane import AsyncCaller, AsyncClient

KILLS = 50


async def measure(*, full: bool) -> list[Figure]:
    kills = KILLS * (4 if full else 1)
    async with deployed(regions=2) as deployment, tone_backend() as url:
        _, key = await deployment.create_project("bench")
        async with AsyncClient(deployment.api_urls, key) as client:
            gaps_ms = [await one(deployment, client, url, i) for i in range(kills)]
    how = f"{kills} kills, two regions on loopback"
    return [
        Figure(family="failover", name="failover.edge_kill_p50_ms", value=statistics.median(gaps_ms), unit="ms", how=how),
        Figure(family="failover", name="failover.edge_kill_p99_ms", value=quantile(gaps_ms, 0.99), unit="ms", how=how),
        Figure(family="failover", name="failover.edge_kill_max_ms", value=max(gaps_ms), unit="ms", how=how,
               target=500.0, at_most=True),
        *await measure_drains(full=full),
        *await silent.measure(full=full),
        *await elsewhere.measure(full=full),
        *await crash.measure(full=full),
        *await replacing.measure(full=full),
    ]  # fmt: skip


async def one(deployment: Deployment, client: AsyncClient, url: str, number: int) -> float:
    """A call, a kill, the gap in milliseconds; the edge is back afterwards."""
    victim = list(deployment.regions)[number % 2]
    call = await client.create_call(url, regions={"pin": victim})
    async with (
        AsyncCaller(call["ticket"], sample_rate=RATE_HZ, client=client) as caller,
        asyncio.timeout(DEADLINE_S),
        speaking(caller),
    ):
        await moment(caller, number)
        os.kill(deployment.regions[caller.region].edge.pid, signal.SIGKILL)
        gap = await gap_ms(caller)
        await caller.hangup()
    await deployment.mend()
    await healthy(deployment)
    return gap
