"""Webhooks: how many per second, how soon after the commit, and what endpoints that hang cost the others.

Receivers, load and database share the machine. Every delivery is signed, claimed and written as an attempt. How
late one is, is told by the event's own time, which is before the commit: what is measured is a little more than what is promised.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
from typing import Any

import httpx

from app.local.deployment import PLACES, Deployment
from app.local.folder import temporary_folder
from app.local.process import free_port
from tests.bench.create import load
from tests.bench.report import Figure
from tests.bench.support import Generator, deployed, generator, idle

WAITING_S = 6.0
PER_S = 200
SECONDS = 10.0
ROUNDS = 3
ROUND_S = 5.0
ENDPOINTS = 1_000
HUNG = 100
DRAINED_WITHIN_S = 120.0


class Deployed(Deployment):
    """One instance that serves requests; those that are started later make deliveries."""

    def api_environment(self, port: int) -> dict[str, str]:
        serves = any(url.endswith(f":{port}") for url in self.api_urls)
        return super().api_environment(port) | {"VOXPLANE_DELIVERIES": "0" if serves else "1"}


async def measure(*, full: bool) -> list[Figure]:
    rounds = ROUNDS * (4 if full else 1)
    async with generator("tests.bench.hook_receiver") as receiver:
        where = await receiver.answer()
        folder = temporary_folder("voxplane-bench")
        try:
            async with Deployed(folder, places=PLACES[:3], instances=1) as deployment:
                throughput = await _throughput(deployment, receiver, where)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        async with deployed(regions=3, instances=2) as deployment:
            return [*throughput, *await _latency(deployment, receiver, where, rounds=rounds)]


async def _throughput(deployment: Deployed, receiver: Generator, where: dict[str, str]) -> list[Figure]:
    """What waits is delivered by one instance that has nothing else to do."""
    _, key = await deployment.create_project("waiting")
    async with httpx.AsyncClient(base_url=deployment.api_urls[0], trust_env=False) as client:
        headers = {"Authorization": f"Bearer {key}"}
        made = await client.post("/v1/webhooks", json={"url": f"{where['url']}/all"}, headers=headers)
        made.raise_for_status()
    port = int(deployment.api_urls[0].rpartition(":")[2])
    waiting = round((await load([port], key, 64, WAITING_S))["per_s"] * WAITING_S)
    await idle([p.pid for p in deployment.apis])
    deployment.apis.append(deployment.start_api(free_port()))
    got: dict[str, Any] = {"count": 0}
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(DRAINED_WITHIN_S):
        while sum(f["count"] for f in found) < waiting * 0.98:
            await asyncio.sleep(1.0)
            got = await receiver.ask({})
            if got["count"]:
                found.append(got)
    steady = found[1:-1] or found
    per_s = statistics.median(f["count"] / 1.0 for f in steady)
    return [_figure("per_s", per_s, "/s", f"one instance, {waiting:,} waiting for one endpoint", 800.0)]


async def _latency(
    deployment: Deployment, receiver: Generator, where: dict[str, str], *, rounds: int
) -> list[Figure]:
    """Two instances, as `voxplane up` starts them: each serves requests and makes deliveries."""
    _, key = await deployment.create_project("paced")
    port = deployment.api_urls[0].rpartition(":")[2]
    healthy = [[f"{where['url']}/h", ENDPOINTS]]
    some_hang = [[f"{where['url']}/h", ENDPOINTS - HUNG], [f"{where['hangs']}/g", HUNG]]
    async with generator("tests.bench.paced_load", port, key, "64") as paced:

        async def run(kinds: list[list[Any]], seconds: float) -> dict[str, Any]:
            await paced.ask({"per_s": PER_S, "seconds": seconds, "urls": kinds})
            await asyncio.sleep(0.5)
            return await receiver.ask({})

        await run(healthy, ENDPOINTS / PER_S)
        first = await run(healthy, SECONDS)
        await run(some_hang, ENDPOINTS / PER_S)
        ratios: list[float] = []
        for _ in range(rounds):
            good = await run(healthy, ROUND_S)
            ill = await run(some_hang, ROUND_S)
            ratios.append(ill["p99_ms"] / good["p99_ms"])
    how = f"{PER_S}/s to {ENDPOINTS:,} endpoints"
    hung_how = f"{HUNG} of {ENDPOINTS:,} endpoints hang; p99 of the others against none, median of {rounds}"
    return [
        _figure("first_p50_ms", first["p50_ms"], "ms", how, 25.0, at_most=True),
        _figure("first_p99_ms", first["p99_ms"], "ms", how, 200.0, at_most=True),
        _figure("hung_ratio", statistics.median(ratios), "×", hung_how, 1.25, at_most=True),
    ]


def _figure(
    name: str, value: float, unit: str, how: str, target: float | None, *, at_most: bool = False
) -> Figure:
    return Figure(
        family="webhooks",
        name=f"webhooks.{name}",
        value=value,
        unit=unit,
        how=how,
        target=target,
        at_most=at_most,
    )
