"""Events per second from an edge's uplink to the durable acknowledgement, against inserting the same rows and nothing else.

One API instance with its tails, hints and row-level security as they always are, one uplink with 444 calls in four batches
under way. The load generator, the API, the database and the inserting process share the machine, but never two sides at a
time: a round of inserting waits until the API has done what it does after an acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.local.deployment import Deployment
from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX, EVENTS_PER_BATCH_MAX
from tests.bench.create import run
from tests.bench.report import Figure
from tests.bench.support import Generator, cpu_s, deployed, family_cpu_s, generator, idle
from tests.bench.talk import exchange
from voxplane import AsyncClient

ROUNDS = 5
EXCHANGES = 20
"""In a call and a round: five minutes of conversation. Every round has calls of its own, on both sides."""
CALLS = BATCHES_IN_FLIGHT_MAX * (EVENTS_PER_BATCH_MAX // len(exchange(0)))
DEADLINE_S = 60.0
REGION = "us-west"
"""The scripted edge's; the deployment's own two are its standbys and keep the tails."""


async def measure(*, full: bool) -> list[Figure]:
    async with deployed(regions=2) as deployment, uplink(deployment) as edge:
        _, key = await deployment.create_project("bench")
        await edge.load.tell({"calls": await placed(deployment, key, edge.id)})
        await edge.write(2)
        await idle([api.pid for api in deployment.apis])
        await inserted(deployment, 2)
        rounds: list[tuple[float, float]] = []
        costs: list[Costs] = []
        for _ in range(ROUNDS * (2 if full else 1)):
            await idle([api.pid for api in deployment.apis])
            before = Costs.now(deployment)
            base = await inserted(deployment, EXCHANGES)
            inserting = Costs.now(deployment) - before
            await edge.load.tell({"calls": await placed(deployment, key, edge.id)})
            await idle([api.pid for api in deployment.apis])
            before = Costs.now(deployment)
            rounds.append((await edge.write(EXCHANGES), base))
            await idle([api.pid for api in deployment.apis])
            costs.append((Costs.now(deployment) - before).beside(inserting))
    ratios = [appended / base for appended, base in rounds]
    per_batch = CALLS // BATCHES_IN_FLIGHT_MAX * len(exchange(0))
    how = (
        f"median of {len(rounds)} ({min(ratios):.2f} to {max(ratios):.2f}), {per_batch} events a batch, against "
        f"{statistics.median(r[1] for r in rounds):,.0f} inserted rows/s"
    )
    return [
        Figure(family="append", name="append.ratio", value=statistics.median(ratios), unit="×", how=how, target=0.3),
        Figure(family="append", name="append.per_s", value=statistics.median(r[0] for r in rounds), unit="events/s",
               how="durable and acknowledged, one uplink"),
        Figure(family="append", name="append.api_cpu_us", value=statistics.median(c.api_us for c in costs), unit="µs/event",
               how="processor time of the instance, with all that it does after the acknowledgement"),
        Figure(family="append", name="append.db_cpu_us", value=statistics.median(c.db_us for c in costs), unit="µs/event",
               how=f"of PostgreSQL; of inserting alone {statistics.median(c.inserting_us for c in costs):.1f}"),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor time by event of a round: what a machine that does other work too hardly changes."""

    api_us: float
    db_us: float
    inserting_us: float = 0.0

    @classmethod
    def now(cls, deployment: Deployment) -> Costs:
        assert deployment.postgres is not None
        us = 1e6 / (CALLS * EXCHANGES * len(exchange(0)))
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


async def inserted(deployment: Deployment, exchanges: int) -> float:
    """Rows per second."""
    out = await run(
        [sys.executable, "-m", "tests.bench.insert_load", deployment.database_url, str(CALLS), str(exchanges)]
    )
    found = json.loads(out)
    return float(found["events"] / found["seconds"])
