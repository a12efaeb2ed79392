"""How long new calls are still placed on an edge that has just died, or hangs, on real processes. Part of the family failover."""

from __future__ import annotations

import asyncio
import os
import signal

from app.local.deployment import Deployment
from tests.bench.report import Figure
from tests.bench.support import deployed, quantile
from voxplane import AsyncClient

ROUNDS = 4
EVERY_S = 0.05
STEADY_S = 1.0
"""So long after the last call that was placed there, none has been."""
DEADLINE_S = 30.0
VICTIM = "eu-west"


async def measure(*, full: bool) -> list[Figure]:
    rounds = ROUNDS * (6 if full else 1)
    took: dict[int, list[float]] = {signal.SIGKILL: [], signal.SIGSTOP: []}
    async with deployed(regions=3, instances=2, capacity_calls=10_000) as deployment:
        _, key = await deployment.create_project("bench")
        async with (
            AsyncClient(deployment.api_urls, key) as client,
            AsyncClient(deployment.api_urls, deployment.operator_key) as operator,
        ):
            for number in range(rounds):
                how = (signal.SIGSTOP, signal.SIGKILL)[number % 2]
                await trusted(operator)
                # another moment of the heartbeat's rhythm each time
                await asyncio.sleep(0.37 * number % 1.0)
                took[how].append(await one(deployment, client, how))
    every = took[signal.SIGKILL] + took[signal.SIGSTOP]
    return [
        Figure(family="failover", name="failover.new_calls_elsewhere_s", value=max(every), unit="s", target=3.0, at_most=True,
               how=f"the longest of {rounds}: SIGKILL and SIGSTOP in turn, three regions, a create every 50 ms"),
        Figure(family="failover", name="failover.new_calls_elsewhere_p50_s", value=quantile(every, 0.5), unit="s",
               how=f"killed {quantile(took[signal.SIGKILL], 0.5):.2f} s, stopped {quantile(took[signal.SIGSTOP], 0.5):.2f} s"),
    ]  # fmt: skip


async def one(deployment: Deployment, client: AsyncClient, how: int) -> float:
    """Seconds from the signal to the last create that was placed there; the edge is back afterwards."""
    loop = asyncio.get_running_loop()
    process = deployment.regions[VICTIM].edge
    os.kill(process.pid, how)
    died_s = last_s = loop.time()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while loop.time() - last_s < STEADY_S or loop.time() - died_s < 3 * STEADY_S:
                asked_s = loop.time()
                placed = await client.create_call("ws://127.0.0.1:9/", regions={"prefer": [VICTIM]})
                if placed["region"] == VICTIM:
                    last_s = asked_s
                await asyncio.sleep(EVERY_S)
    finally:
        if how == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
    if how == signal.SIGKILL:
        await deployment.mend()
    return last_s - died_s


async def trusted(operator: AsyncClient) -> None:
    """The victim takes calls and its neighbours see it."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await operator.region_health(VICTIM)
            probes = next(s for s in found["edges"][0]["signals"] if s["signal"] == "probes")
            if found["verdict"] in ("healthy", "probation") and probes["says"] == "up":
                return
            await asyncio.sleep(0.1)
