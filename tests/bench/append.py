"""Events per second from an edge's uplink to the durable acknowledgement, against inserting the same rows and nothing else.

One API instance with its tails, hints and row-level security as they always are, one uplink with 444 calls in four batches
under way. The load generator, the API, the database and the inserting process share the machine, but never two sides at a
time: a round of inserting waits until the API has done what it does after an acknowledgement.
"""

from __future__ import annotations

import json
import statistics
import sys

from app.local.deployment import Deployment
from regions.wire.uplink import BATCHES_IN_FLIGHT_MAX
from tests.bench import append_flat, append_wan
from tests.bench.create import run
from tests.bench.report import Figure
from tests.bench.scripted import CALLS, EXCHANGES, Costs, placed, uplink
from tests.bench.support import deployed, idle
from tests.bench.talk import exchange

ROUNDS = 5


async def measure(*, full: bool) -> list[Figure]:
    figures = await against_inserts(ROUNDS * (2 if full else 1)) + await append_wan.measure()
    return figures + (await append_flat.measure() if full else [])


async def against_inserts(rounds_wanted: int) -> list[Figure]:
    async with deployed(regions=2) as deployment, uplink(deployment) as edge:
        _, key = await deployment.create_project("bench")
        await edge.load.tell({"calls": await placed(deployment, key, edge.id)})
        await edge.write(2)
        await idle([api.pid for api in deployment.apis])
        await inserted(deployment, 2)
        rounds: list[tuple[float, float]] = []
        costs: list[Costs] = []
        for _ in range(rounds_wanted):
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


async def inserted(deployment: Deployment, exchanges: int) -> float:
    """Rows per second."""
    out = await run(
        [sys.executable, "-m", "tests.bench.insert_load", deployment.database_url, str(CALLS), str(exchanges)]
    )
    found = json.loads(out)
    return float(found["events"] / found["seconds"])
