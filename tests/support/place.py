"""A deployment of one test: regions with edges that do as they are told, calls that run on them, commands of operators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from app.log.append import EdgeIdentity
from regions.wire import ids
from tests.support.api import Api, Project
from tests.support.calls import WrittenCall, event
from tests.support.fleet import add_region

WITHIN_S = 20.0


@dataclass
class Place:
    """A deployment of this test's own: its regions are nobody else's."""

    api: Api
    project: Project
    edges: dict[str, EdgeIdentity] = field(default_factory=dict)

    async def add(self, region: str, jurisdiction: str = "us", capacity: int = 100) -> EdgeIdentity:
        edge, incarnation = await add_region(self.api, region, jurisdiction, capacity=capacity)
        self.edges[region] = EdgeIdentity(edge, incarnation, region)
        return self.edges[region]

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.api.settings.database_url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def call(self, region: str, **regions: Any) -> WrittenCall:
        """In progress on the region's edge."""
        latencies = [{"region": r, "rtt_ms": 10 if r == region else 150} for r in self.edges]
        body = {"agent": {"url": "ws://127.0.0.1:9/"}, "latencies": latencies, "regions": regions}
        made = await self.project.client.post(
            "/v1/calls", json=body, headers={"Idempotency-Key": str(uuid4())}
        )
        assert made.status_code == 201, made.text
        assert made.json()["region"] == region
        call = WrittenCall(made.json()["id"], [self.edges[region]], self.project, made.json()["ticket"])
        await call.append(self.api, 1, event(1, "call.answered", encoding="pcm16", sample_rate=16_000))
        return call

    async def command(self, what: str, verb: str, **body: Any) -> httpx.Response:
        return await self.api.operator.post(f"/admin/v1/{what}/{verb}", json=body or None)

    async def progress(self, what: str) -> dict[str, Any]:
        shown = await self.api.operator.get(f"/admin/v1/{what}/drain")
        assert shown.status_code == 200, shown.text
        found: dict[str, Any] = shown.json()
        return found

    async def asked(self, region: str) -> dict[str, int]:
        """Call → the first epoch that its edge was told of."""
        rows = await self.sql(
            "select call_id, body from vx.desired where edge_id = $1 and kind = 'move'",
            self.edges[region].edge_id,
        )
        return {ids.encode(ids.CALL, r["call_id"]): int(json.loads(r["body"])["epoch"]) for r in rows}

    async def take(self, call: WrittenCall, epoch: int) -> None:
        """As the caller would: the edge that was granted the epoch writes that the call has moved."""
        [row] = await self.sql(
            "select grant_edges[$2] as edge from vx.calls where id = $1", ids.decode(ids.CALL, call.id), epoch
        )
        owner = next(e for e in self.edges.values() if e.edge_id == row["edge"])
        call.owners += [owner] * (epoch - len(call.owners))
        await call.append(
            self.api,
            epoch,
            event(1, "call.moved", from_epoch=1, to_epoch=epoch, reason="planned", history="tail"),
        )

    async def until(self, true: Callable[[], Any], what: str) -> Any:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not (found := await true()):
                    await asyncio.sleep(0.02)
                return found
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None
