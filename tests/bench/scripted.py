"""A scripted edge, the calls it owns, and what its events cost: shared by the measurements of the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.local.deployment import Deployment
from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX, EVENTS_PER_BATCH_MAX
from tests.bench.support import Generator, cpu_s, family_cpu_s, generator
from tests.bench.talk import exchange
from voxplane import AsyncClient

EXCHANGES = 20
"""In a call and a round: five minutes of conversation. Every round has calls of its own, on both sides."""
CALLS = BATCHES_IN_FLIGHT_MAX * (EVENTS_PER_BATCH_MAX // len(exchange(0)))
DEADLINE_S = 60.0
REGION = "us-west"
"""The scripted edge's; the deployment's own two are its standbys and keep the tails."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time by event of a round: what a machine that does other work too hardly changes."""

    api_us: float
    db_us: float
    inserting_us: float = 0.0

    @classmethod
    def now(cls, deployment: Deployment, exchanges: int = EXCHANGES) -> Costs:
        """So far, over the events of a round; two of these are subtracted."""
        assert deployment.postgres is not None
        us = 1e6 / (CALLS * exchanges * len(exchange(0)))
        return cls(cpu_s([a.pid for a in deployment.apis]) * us, family_cpu_s(deployment.postgres.pid) * us)

    def __sub__(self, before: Costs) -> Costs:
        return Costs(self.api_us - before.api_us, self.db_us - before.db_us)

    def beside(self, inserting: Costs) -> Costs:
        return Costs(self.api_us, self.db_us, inserting.db_us)


@dataclass(slots=True)
class ScriptedEdge:
    load: Generator
    id: str

    async def write(self, exchanges: int) -> float:
        """Events per second."""
        found = await self.load.ask({"exchanges": exchanges})
        return float(found["events"] / found["seconds"])


@asynccontextmanager
async def uplink(deployment: Deployment, url: str = "") -> AsyncIterator[ScriptedEdge]:
    """`url`: where the edge reaches the instance, if not directly."""
    async with deployment.operator() as client:
        made = await client.post("/admin/v1/regions", json={"id": REGION, "jurisdiction": "us"})
        made.raise_for_status()
        enrolled = (await client.post(f"/admin/v1/regions/{REGION}/enrol")).json()
    folder = str(deployment.folder / "scripted")
    async with generator("tests.bench.uplink_load", url or deployment.api_urls[0], REGION, folder) as load:
        yield ScriptedEdge(load, (await load.ask({"token": enrolled["token"]}))["edge"])


async def placed(deployment: Deployment, key: str, edge_id: str, calls: int = CALLS) -> list[str]:
    """Calls that the scripted edge owns."""
    found: list[str] = []
    async with AsyncClient(deployment.api_urls, key) as client, asyncio.timeout(DEADLINE_S):
        while len(found) < calls:
            many = [client.create_call("ws://127.0.0.1:9/", regions={"pin": REGION}) for _ in range(16)]
            found += [call["id"] for call in await asyncio.gather(*many) if call["edge"] == edge_id]
    return found[:calls]
